"""What to train on, as the user asked for it: datasets, each with its own size and batch, made of subsets
(folders or metadata files).

They come from the folder options, from `--in_json`, or from a dataset file (`file.py`). Whatever a dataset
file leaves out falls back from subset to dataset to [general] to the command line.
"""

from __future__ import annotations

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
from library.data.scan.folders import ClassFolder, find_class_folders, is_image_name, list_folder
from library.options.data import DataOptions
from library.problems import Problems, warn, warn_idle

LONGEST_SIDE = 65_536  # pixels; the side of no picture that is trained on
MOST_IMAGES = 100_000  # of a batch
MOST_SAMPLES = 10**7  # an epoch; more takes gigabytes to list, and is a typing mistake

# Key -> (whether a value can be used, what it must be).
Checks = dict[str, tuple[Callable[[Any], bool], str]]

CHECKS: Checks = {
    "batch_size": (lambda n: n >= 1, "must be 1 or more"),
    "min_bucket_reso": (lambda n: n >= 1, "must be 1 or more"),
    "max_bucket_reso": (lambda n: n >= 1, "must be 1 or more"),
    "num_repeats": (
        lambda n: 0 <= n <= MOST_SAMPLES,
        f"must be 0 (leave the subset out) to {MOST_SAMPLES:,}",
    ),
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
# What nobody asks for: such numbers are typing mistakes, and cost gigabytes.
LIMITS: Checks = {
    "batch_size": (lambda n: n <= MOST_IMAGES, f"must be 1 to {MOST_IMAGES:,}"),
    "min_bucket_reso": (lambda n: n <= LONGEST_SIDE, f"must be 1 to {LONGEST_SIDE:,} pixels"),
    "max_bucket_reso": (lambda n: n <= LONGEST_SIDE, f"must be 1 to {LONGEST_SIDE:,} pixels"),
}


def read_datasets(options: DataOptions, *, pixel_multiple: int) -> list[DatasetSpec]:
    """The datasets that the options ask for. Folders are listed; images are not read yet.

    pixel_multiple: what the sides of pictures must be multiples of, for the model.
    Raises UserError with every problem of the dataset file or the folder options.
    """
    problems = Problems()
    datasets = collect_datasets(options, problems, pixel_multiple=pixel_multiple)
    problems.raise_if_any()
    return datasets


def collect_datasets(options: DataOptions, problems: Problems, *, pixel_multiple: int) -> list[DatasetSpec]:
    """As `read_datasets`, but adds to `problems` and returns whatever can be understood, so that problems of
    its images are found too.
    """
    settings = list(_settings(options, problems))
    for place, why in find_without_effect(given for _, subsets in settings for given in subsets).items():
        warn_idle(place, why)
    settings = [(_with_usable_step(given, pixel_multiple), subsets) for given, subsets in settings]
    for line in dict.fromkeys(_unexpected(settings)):
        warn(line)
    return [
        dataset
        for given, subsets in settings
        for dataset in make_datasets(given, subsets, problems, pixel_multiple=pixel_multiple)
    ]


def _settings(options: DataOptions, problems: Problems) -> Iterator[tuple[Given, list[Given]]]:
    """For each dataset its own settings, and those of each of its subsets."""
    command_line = _from_options(options)
    if options.dataset_config is not None:
        for general, dataset, subsets in read_dataset_file(options.dataset_config, problems):
            given = {**command_line, **general, **dataset}
            yield given, [{**given, **subset} for subset in subsets]
        return
    if options.in_json is None:
        has_own = options.fine_tuning or options.needs_hints
        make = _own_or_class_subsets if has_own else _class_folder_subsets
        tables = make(options, problems)
    else:
        folder, file = ("--train_data_dir", options.train_data_dir), ("--in_json", options.in_json)
        tables = [{"image_dir": folder, "metadata_file": file}]
    yield command_line, [{**command_line, **table} for table in tables]


def _unexpected(settings: list[tuple[Given, list[Given]]]) -> Iterator[str]:
    """What in the settings has another effect than it says."""
    for given, _ in settings:
        step = given["bucket_reso_steps"][1]
        if given["enable_bucket"][1] and not given["bucket_no_upscale"][1] and step > 0:
            for where, limit in (given["min_bucket_reso"], given["max_bucket_reso"]):
                if limit % step:
                    yield f"{where}: {limit} is rounded outwards to a multiple of {step}"


def _with_usable_step(given: Given, multiple: int) -> Given:
    """The settings with a bucket step that the VAE can encode: GUIs' presets have 1."""
    where, step = given["bucket_reso_steps"]
    if not 0 < step < multiple:
        return given
    if given["enable_bucket"][1]:
        warn(f"{where}: {step} is raised to {multiple}: the sides of buckets must be multiples of that")
    return {**given, "bucket_reso_steps": (where, multiple)}


def make_datasets(
    given: Given, subsets: list[Given], problems: Problems, *, pixel_multiple: int
) -> list[DatasetSpec]:
    """The dataset of these settings, once for each of its resolutions. When problems were added, it is good
    only for finding problems of its images.
    """
    before = len(problems.found)
    values = _checked(
        given, DATASET_KEYS, CHECKS | {"bucket_reso_steps": _step_check(pixel_multiple)}, problems
    )
    resolutions = values.pop("resolution")
    if resolutions is None:
        problems.add(given["resolution"][0], "is needed", "give the size to train at, such as 512 or 512,768")
    for resolution in resolutions or ():
        _check_sizes(given, resolution, problems, pixel_multiple)
    resolutions = resolutions or ((512, 512),)
    if len(problems.found) > before:
        values["enable_bucket"] = False  # no buckets can be made with such settings
    specs = tuple(_without_idle([_make_subset(subset, problems) for subset in subsets]))
    return [
        DatasetSpec(**values, resolution=resolution, subsets=specs)
        for resolution in dict.fromkeys(resolutions)
    ]


def _make_subset(given: Given, problems: Problems) -> SubsetSpec:
    values = _checked(given, SUBSET_KEYS, CHECKS, problems)
    if not values["caption_extension"].startswith("."):
        values["caption_extension"] = "." + values["caption_extension"]
    return SubsetSpec(**values)


def _without_idle(subsets: list[SubsetSpec]) -> list[SubsetSpec]:
    """The subsets without those of zero repeats, and without those whose source an earlier one has."""
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


def _step_check(multiple: int) -> tuple[Callable[[Any], bool], str]:
    """The VAE must be able to encode every bucket."""
    return (
        lambda n: n >= multiple and n % multiple == 0,
        f"must be a multiple of {multiple} (64 suits every model)",
    )


def _checked(given: Given, keys: tuple[str, ...], checks: Checks, problems: Problems) -> dict[str, Any]:
    """The values. One that cannot be used is a problem, and its default is taken to check the rest with."""
    values: dict[str, Any] = {}
    for key in keys:
        where, values[key] = given[key]
        for can_be, must_be in (table[key] for table in (checks, LIMITS) if key in table):
            if not can_be(values[key]):
                problems.add(where, f"is {values[key]!r}", f"it {must_be}")
                values[key] = DEFAULTS[key]
    return values


def _check_sizes(given: Given, resolution: Size, problems: Problems, multiple: int) -> None:
    """The resolution must fit the buckets; without buckets, the VAE must be able to encode it."""
    where, (width, height) = given["resolution"][0], resolution
    step = max(1, given["bucket_reso_steps"][1])
    if max(resolution) > LONGEST_SIDE:
        problems.add(where, f"is {width},{height}", f"sides must be at most {LONGEST_SIDE:,} pixels")
        return
    if not given["enable_bucket"][1]:
        if width % multiple or height % multiple:
            problems.add(where, f"is {width},{height}", f"sides must be multiples of {multiple}")
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
    """The command line's settings, which hold where nothing else sets a key."""
    given: dict[str, tuple[str, Any]] = {key: (key, value) for key, value in OWN_DEFAULTS.items()}
    if options.ucg is not None:
        given["caption_dropout_rate"] = ("--ucg", options.ucg)
    for key in (*DATASET_KEYS, *SUBSET_KEYS):
        if key not in given:
            option = OPTION_NAMES.get(key, key)
            given[key] = (f"--{option}", getattr(options, option))
    return given


def _own_or_class_subsets(options: DataOptions, problems: Problems) -> list[Given]:
    """The folder itself as a subset; when it holds no images, its class folders, whose names do not stand in
    for captions where each image must have one.
    """
    folder = options.train_data_dir
    assert folder is not None
    entries = list_folder(folder, "--train_data_dir", problems)
    if entries is None:
        return []
    has_images = any(is_image_name(entry.name) for entry in entries)
    if not has_images and any(entry.is_dir() and ClassFolder.from_path(Path(entry)) for entry in entries):
        subsets = _class_folder_subsets(options, problems)
        if not options.fine_tuning:
            return subsets
        return [{**subset, "class_tokens": (subset["class_tokens"][0], None)} for subset in subsets]
    return [{"image_dir": ("--train_data_dir", folder)}]


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
