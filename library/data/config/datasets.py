"""What to train on, as the user asked for it: datasets, each with its own size and batch, made of subsets
(folders or metadata files).

They come from the folder options, from `--in_json`, or from a dataset file (`config_file.py`). Whatever a
dataset file leaves out falls back from subset to dataset to [general] to the command line.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from library.data.buckets import Size
from library.data.config.file import read_dataset_file
from library.data.config.specs import DATASET_KEYS, OPTION_NAMES, SUBSET_KEYS, DatasetSpec, Given, SubsetSpec
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

# Keys that do something only together with one of these.
NEEDS = {
    "bucket_no_upscale": ("enable_bucket",),
    "min_bucket_reso": ("enable_bucket",),
    "max_bucket_reso": ("enable_bucket",),
    "bucket_reso_steps": ("enable_bucket",),
    "validation_seed": ("validation_split",),
    "keep_tokens": ("shuffle_caption", "caption_tag_dropout_rate", "token_warmup_step"),
    "token_warmup_min": ("token_warmup_step",),
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
    command_line = _from_options(options)
    if options.dataset_config is not None:
        tables = read_dataset_file(options.dataset_config, problems)
        return [made for table in tables for made in _from_tables(*table, command_line, problems)]
    if options.in_json is not None:
        images = {"metadata_file": ("--in_json", options.in_json)}
        if options.train_data_dir is not None:
            images["image_dir"] = ("--train_data_dir", options.train_data_dir)
        return make_datasets(command_line, [ChainMap(images, command_line)], problems)
    subsets = _class_folder_subsets(options, problems)
    return make_datasets(command_line, [ChainMap(subset, command_line) for subset in subsets], problems)


def _from_tables(
    general: Given, dataset: Given, subsets: list[Given], command_line: Given, problems: Problems
) -> list[DatasetSpec]:
    """A dataset of a dataset file. What it says itself but comes to nothing is a warning."""
    given = ChainMap(dataset, general, command_line)
    chains = [ChainMap(subset, given) for subset in subsets]
    _warn_without_effect(dataset, given)
    for subset, chain in zip(subsets, chains, strict=True):
        _warn_without_effect(subset, chain)
    return make_datasets(given, chains, problems)


def _warn_without_effect(own: Given, given: Given) -> None:
    for key, needed in NEEDS.items():
        if key in own and own[key][1] and not any(given[other][1] for other in needed):
            warn(f"{own[key][0]}: has no effect without {' or '.join(needed)}")


def make_datasets(given: Given, subsets: list[Given], problems: Problems) -> list[DatasetSpec]:
    """The dataset of these settings, once for each of its resolutions. Once problems were added it serves
    only to look at its images.
    """
    before = len(problems.found)
    values = {key: given[key][1] for key in DATASET_KEYS}
    _check(given, DATASET_KEYS, problems)
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
    _check(given, SUBSET_KEYS, problems)
    values = {key: given[key][1] for key in SUBSET_KEYS}
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


def _check(given: Given, keys: tuple[str, ...], problems: Problems) -> None:
    for key in keys:
        where, value = given[key]
        if key in CHECKS and not CHECKS[key][0](value):
            problems.add(where, f"is {value!r}", f"it {CHECKS[key][1]}")


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
    for limit in (shortest, longest):
        if limit[1] % step:
            warn(f"{limit[0]}: {limit[1]} is rounded outwards to a multiple of {step}")


def _from_options(options: DataOptions) -> Given:
    """The command line as the last place to look for a key."""
    given: dict[str, tuple[str, Any]] = {
        "image_dir": ("--train_data_dir", None),
        "metadata_file": ("--in_json", None),
        "is_reg": ("--reg_data_dir", False),
        "class_tokens": ("class_tokens", None),
        "network_multiplier": ("network_multiplier", 1.0),
        "custom_attributes": ("custom_attributes", {}),
    }
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
