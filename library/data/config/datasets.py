"""What to train on, as the user asked for it: datasets, each with its own size and batch, made of subsets
(folders or metadata files).

They come from the folder options, from `--in_json`, or from a dataset file (`config_file.py`). Whatever a
dataset file leaves out falls back from subset to dataset to [general] to the command line.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from library.data.buckets import Size
from library.data.config.file import read_dataset_file
from library.data.config.specs import (
    DATASET_KEYS,
    DEFAULTS,
    OPTION_NAMES,
    OWN_DEFAULTS,
    SUBSET_KEYS,
    DatasetSpec,
    Given,
    SubsetSpec,
)
from library.data.config.without_effect import find_without_effect
from library.data.scan.folders import find_class_folders
from library.options.data import DataOptions
from library.problems import Problems, warn

CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "batch_size": (lambda n: n >= 1, "must be 1 or more"),
    "min_bucket_reso": (lambda n: n >= 1, "must be 1 or more"),
    "max_bucket_reso": (lambda n: n >= 1, "must be 1 or more"),
    # The VAE makes one latent of 8 x 8 pixels.
    "bucket_reso_steps": (lambda n: n >= 8 and n % 8 == 0, "must be a multiple of 8 (64 suits every model)"),
    "num_repeats": (lambda n: n >= 0, "must be 0 (leave the subset out) or more"),
    "keep_tokens": (lambda n: n >= 0, "must be 0 or more"),
    "caption_extension": (lambda text: text.strip(". ") != "", "must not be empty"),
    "caption_separator": (lambda text: text != "", "must not be empty"),
    "caption_dropout_rate": (lambda p: 0 <= p <= 1, "is a probability: 0 to 1"),
    "caption_tag_dropout_rate": (lambda p: 0 <= p <= 1, "is a probability: 0 to 1"),
    "caption_dropout_every_n_epochs": (lambda n: n >= 0, "must be 0 (never) or more"),
    "token_warmup_min": (lambda n: n >= 0, "must be 0 or more"),
    "token_warmup_step": (lambda n: n >= 0, "must be 0 (no warm-up) or more"),
    "validation_split": (lambda p: 0 <= p < 1, "must be 0 or more and below 1"),
    "network_multiplier": (lambda x: x != 0, "must not be 0"),
}


def read_datasets(options: DataOptions) -> list[DatasetSpec]:
    """The datasets that the options ask for. Looks at folder names, not yet at images.

    Raises UserError with every problem of the dataset file or the folder options.
    """
    problems = Problems()
    datasets = collect_datasets(options, problems)
    problems.raise_if_any()
    return datasets


def collect_datasets(options: DataOptions, problems: Problems) -> list[DatasetSpec]:
    """Like `read_datasets`, but adds to `problems` and gives what can be made sense of all the same, so that
    the images in it are looked at too.
    """
    settings = list(_settings(options, problems))
    for line in dict.fromkeys(_unexpected(settings)):
        warn(line)
    return [made for given, subsets in settings for made in make_datasets(given, subsets, problems)]


def _settings(options: DataOptions, problems: Problems) -> Iterator[tuple[Given, list[Given]]]:
    """Of each dataset its own settings, and those of its subsets."""
    command_line = _from_options(options)
    if options.dataset_config is not None:
        for general, dataset, subsets in read_dataset_file(options.dataset_config, problems):
            given = ChainMap(dataset, general, command_line)
            yield given, [ChainMap(subset, given) for subset in subsets]
        return
    if options.in_json is None:
        tables = _class_folder_subsets(options, problems)
    else:
        folder, file = ("--train_data_dir", options.train_data_dir), ("--in_json", options.in_json)
        tables = [{"image_dir": folder, "metadata_file": file}]
    yield command_line, [ChainMap(table, command_line) for table in tables]


def _unexpected(settings: list[tuple[Given, list[Given]]]) -> Iterator[str]:
    yield from find_without_effect(chain for _, subsets in settings for chain in subsets)
    for given, _ in settings:
        step = given["bucket_reso_steps"][1]
        if given["enable_bucket"][1] and not given["bucket_no_upscale"][1] and step > 0:
            for where, limit in (given["min_bucket_reso"], given["max_bucket_reso"]):
                if limit % step:
                    yield f"{where}: {limit} is rounded outwards to a multiple of {step}"


def make_datasets(given: Given, subsets: list[Given], problems: Problems) -> list[DatasetSpec]:
    """The dataset of these settings, once for each of its resolutions. Once problems were added it serves
    only to look at its images.
    """
    before = len(problems.found)
    values = _checked(given, DATASET_KEYS, problems)
    resolutions = values.pop("resolution")
    if resolutions is None:
        problems.add(given["resolution"][0], "is needed", "give the size to train at, such as 512 or 512,768")
    for resolution in resolutions or ():
        _check_sizes(given, resolution, problems)
    resolutions = resolutions or ((512, 512),)
    if len(problems.found) > before:
        values["enable_bucket"] = False  # no buckets can be made with such settings
    specs = tuple(_without_idle([_make_subset(subset, problems) for subset in subsets]))
    return [
        DatasetSpec(**values, resolution=resolution, subsets=specs)
        for resolution in dict.fromkeys(resolutions)
    ]


def _make_subset(given: Given, problems: Problems) -> SubsetSpec:
    values = _checked(given, SUBSET_KEYS, problems)
    if not values["caption_extension"].startswith("."):
        values["caption_extension"] = "." + values["caption_extension"]
    return SubsetSpec(**values)


def _without_idle(subsets: list[SubsetSpec]) -> list[SubsetSpec]:
    """Leaves out subsets with zero repeats, and later ones with a source that an earlier one has."""
    kept: dict[Path, SubsetSpec] = {}
    for subset in subsets:
        source = subset.source.resolve()
        if subset.num_repeats < 1:
            warn(f"{subset.source}: num_repeats is {subset.num_repeats}, so it is left out")
        elif source in kept:
            warn(f"{subset.source}: is there twice in one dataset; the second one is left out")
        else:
            kept[source] = subset
    return list(kept.values())


def _checked(given: Given, keys: tuple[str, ...], problems: Problems) -> dict[str, Any]:
    """The values; in place of one that cannot be used its default, so that the rest can be looked at."""
    values = {}
    for key in keys:
        where, values[key] = given[key]
        if key in CHECKS and not CHECKS[key][0](values[key]):
            problems.add(where, f"is {values[key]!r}", f"it {CHECKS[key][1]}")
            values[key] = DEFAULTS[key]
    return values


def _check_sizes(given: Given, resolution: Size, problems: Problems) -> None:
    """Whether the resolution fits the buckets; without buckets, whether it can be encoded."""
    where, (width, height) = given["resolution"][0], resolution
    step = max(1, given["bucket_reso_steps"][1])
    if not given["enable_bucket"][1]:
        if width % 8 or height % 8:
            problems.add(where, f"is {width},{height}", "sides must be multiples of 8")
        return
    if width * height < step * step:
        cause = f"{width},{height} is smaller than one bucket step of {step} x {step}"
        problems.add(where, cause, "raise it, or lower bucket_reso_steps")
    if given["bucket_no_upscale"][1]:  # buckets are made to fit, within no limits
        return
    shortest, longest = given["min_bucket_reso"], given["max_bucket_reso"]
    if min(width, height) < shortest[1] // step * step:
        problems.add(shortest[0], f"{shortest[1]} is more than the resolution {width},{height}", "lower it")
    if max(width, height) > -(-longest[1] // step) * step:
        problems.add(longest[0], f"{longest[1]} is less than the resolution {width},{height}", "raise it")


def _from_options(options: DataOptions) -> Given:
    """The command line as the last place to look for a key."""
    given: dict[str, tuple[str, Any]] = {key: (key, value) for key, value in OWN_DEFAULTS.items()}
    if options.ucg is not None:
        given["caption_dropout_rate"] = ("--ucg", options.ucg)
    for key in (*DATASET_KEYS, *SUBSET_KEYS):
        if key not in given:
            option = OPTION_NAMES.get(key, key)
            given[key] = (f"--{option}", getattr(options, option))
    return given


def _class_folder_subsets(options: DataOptions, problems: Problems) -> list[Given]:
    subsets: list[Given] = []
    for option, is_reg in (("train_data_dir", False), ("reg_data_dir", True)):
        parent = getattr(options, option)
        if parent is None:
            continue
        for folder in find_class_folders(parent, f"--{option}", problems):
            values = {
                "image_dir": folder.path,
                "is_reg": is_reg,
                "class_tokens": folder.class_tokens,
                # Regularization images have no masks: they are learned whole.
                "conditioning_data_dir": None if is_reg else options.conditioning_data_dir,
                # --dataset_repeats repeats the whole dataset, whatever the folders' own numbers.
                "num_repeats": folder.repeats * options.dataset_repeats,
            }
            subsets.append({key: (str(folder.path), value) for key, value in values.items()})
    return subsets
