"""Datasets and subsets as typed settings, from a dataset file or from the folder options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from library.data.buckets import Size
from library.options.data import DataOptions, MaskSource
from library.options.fields import specs_of

# Key -> (where the user gave it, its value), so that a problem can name the place.
Given = Mapping[str, tuple[str, Any]]

# Key of a dataset file -> its option on the command line, where that has another name.
OPTION_NAMES = {"batch_size": "train_batch_size", "num_repeats": "dataset_repeats"}


@dataclass(frozen=True, kw_only=True)
class SubsetSpec:
    """Images that share their settings: one folder, or one metadata file."""

    image_dir: Path | None
    metadata_file: Path | None
    conditioning_data_dir: Path | None
    is_reg: bool
    class_tokens: str | None
    num_repeats: int
    resize_interpolation: str | None
    random_crop: bool
    face_crop_aug_range: tuple[float, float] | None
    flip_aug: bool
    color_aug: bool
    alpha_mask: bool
    inpainting_masks: Path | MaskSource
    cache_info: bool
    custom_attributes: Mapping[str, Any]
    caption_extension: str
    caption_prefix: str | None
    caption_suffix: str | None
    caption_separator: str
    secondary_separator: str | None
    keep_tokens: int
    keep_tokens_separator: str
    shuffle_caption: bool
    enable_wildcard: bool
    caption_dropout_rate: float
    caption_dropout_every_n_epochs: int
    caption_tag_dropout_rate: float
    token_warmup_min: int
    token_warmup_step: float

    @property
    def mask_folder(self) -> Path | None:
        """The folder with the masks of what is painted anew; None: they come from elsewhere."""
        return self.inpainting_masks if isinstance(self.inpainting_masks, Path) else None

    @property
    def source(self) -> Path:
        """The metadata file, or else the folder, as messages name it."""
        source = self.metadata_file or self.image_dir
        assert source is not None
        return source

    @property
    def name(self) -> str:
        """The base name of the folder or metadata file, as in model metadata."""
        return base_name(self.source)


def base_name(path: Path) -> str:
    """The name that a path ends with, also if it is written "." or "..". A link has its own name."""
    return Path(os.path.normpath(path.absolute())).name


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Subsets that train at one resolution and batch size."""

    resolution: Size
    batch_size: int
    enable_bucket: bool
    bucket_no_upscale: bool
    min_bucket_reso: int
    max_bucket_reso: int
    bucket_reso_steps: int
    network_multiplier: float
    validation_split: float
    validation_seed: int | None
    subsets: tuple[SubsetSpec, ...]

    @property
    def is_dreambooth(self) -> bool:
        """Whether it has class folders with caption files, rather than metadata files."""
        return all(subset.metadata_file is None for subset in self.subsets)


DATASET_KEYS = tuple(field.name for field in fields(DatasetSpec) if field.name != "subsets")
SUBSET_KEYS = tuple(field.name for field in fields(SubsetSpec))

# The defaults of keys without an option of the same meaning.
OWN_DEFAULTS: dict[str, Any] = {
    "image_dir": None,
    "metadata_file": None,
    "is_reg": False,
    "class_tokens": None,
    "network_multiplier": 1.0,
    "custom_attributes": {},
}
# The defaults of all keys, and of all options of DataOptions.
DEFAULTS: dict[str, Any] = {spec.name: spec.default for spec in specs_of(DataOptions)}
DEFAULTS |= {key: DEFAULTS[option] for key, option in OPTION_NAMES.items()} | OWN_DEFAULTS
