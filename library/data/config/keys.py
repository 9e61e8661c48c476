"""The keys of a dataset file, where each may stand, and which one a wrong name was most likely meant for."""

from __future__ import annotations

import difflib
from enum import Enum
from typing import Any

from library.data.config.specs import DATASET_KEYS, SUBSET_KEYS
from library.options.elsewhere import every_option

ONLY_IN_SUBSETS = ("image_dir", "metadata_file", "conditioning_data_dir", "is_reg")

# The tables, and the keys they may have.
TOP = ("general", "datasets")
GENERAL = (*DATASET_KEYS, *(key for key in SUBSET_KEYS if key not in ONLY_IN_SUBSETS))
DATASET = (*GENERAL, "subsets")
SUBSET = SUBSET_KEYS


class Kind(str, Enum):
    """What a dataset's subsets are made of. In sd-scripts: DreamBooth, fine-tuning, ControlNet."""

    FOLDERS = "image folders"
    METADATA = "metadata files"
    PAIRS = "conditioning images"


# Keys of a kind's own tables that would ask for something else than is done: an error.
FOREIGN: dict[Kind, tuple[str, ...]] = {
    Kind.FOLDERS: (),
    Kind.METADATA: ("is_reg",),
    Kind.PAIRS: ("is_reg", "metadata_file"),
}
# And those that change nothing: a warning.
WITHOUT_EFFECT: dict[Kind, tuple[str, ...]] = {
    Kind.FOLDERS: (),
    Kind.METADATA: ("caption_extension", "class_tokens", "cache_info"),
    Kind.PAIRS: ("class_tokens", "alpha_mask"),
}

# Names of options, and other likely words -> the key of a dataset file.
_OTHER_NAMES = {
    "train_batch_size": "batch_size",
    "dataset_repeats": "num_repeats",
    "repeats": "num_repeats",
    "train_data_dir": "image_dir",
    "folder": "image_dir",
    "path": "image_dir",
    "in_json": "metadata_file",
    "caption_extention": "caption_extension",
    "size": "resolution",
    "subset": "subsets",
    "dataset": "datasets",
}


def kind_of_subset(table: dict[str, Any]) -> Kind:
    """The kind of a subset, by the key that says where its images come from."""
    if table.get("conditioning_data_dir") is not None:
        return Kind.PAIRS
    return Kind.METADATA if table.get("metadata_file") is not None else Kind.FOLDERS


def explain_unknown(key: str, allowed: tuple[str, ...]) -> tuple[str, str, str | None]:
    """About a key that a table cannot have: cause, fix, and the allowed key that it is most likely meant for,
    or None.
    """
    if _home(key):
        meant = key if key == "subsets" and allowed == TOP else None
        return f"belongs in {_home(key)}", "move it there", meant
    if key == "reg_data_dir":
        return "there is no such key", "make a subset of the folder, with is_reg = true", None
    meant = _meant(key, allowed)
    if meant in allowed:
        return "there is no such key", f"did you mean {meant}?", meant
    if meant is not None:
        return "there is no such key", f"did you mean {meant}? it belongs in {_home(meant)}", None
    options = every_option() - {*DATASET, *SUBSET}
    option = next(iter(difflib.get_close_matches(key[:100], options, n=1, cutoff=0.85)), None)
    if option is not None:
        where = "give it on the command line or in the --config_file"
        if key == option:
            return "is an option of the command, not of a dataset", where, None
        return "there is no such key", f"did you mean the option --{option}? {where}", None
    keys = "the keys are in docs/datasets.md" if len(allowed) > 5 else f"there are: {', '.join(allowed)}"
    return "there is no such key", keys, None


def _home(key: str) -> str:
    """Where a key may stand; empty when there is no such key."""
    if key in ONLY_IN_SUBSETS:
        return "[[datasets.subsets]]"
    if key in DATASET_KEYS:
        return "[[datasets]] or [general]"
    if key in SUBSET_KEYS:
        return "[[datasets.subsets]], [[datasets]] or [general]"
    return {"subsets": "a dataset, as [[datasets.subsets]]"}.get(key, "the file's top" if key in TOP else "")


def _meant(key: str, allowed: tuple[str, ...]) -> str | None:
    """The key that a name resembles, preferably one allowed here; None for an option's name."""
    plain = key[:100].lower().replace("-", "_")
    if plain in _OTHER_NAMES:
        return _OTHER_NAMES[plain]
    if plain in every_option() - {*DATASET, *SUBSET}:
        return None
    return next(iter(_close(plain, allowed) or _close(plain, (*TOP, *DATASET, *SUBSET))), None)


def _close(key: str, names: tuple[str, ...]) -> list[str]:
    return difflib.get_close_matches(key, names, n=1, cutoff=0.7)
