"""The dataset file: TOML or JSON with [general], [[datasets]] and [[datasets.subsets]].

Keys, types and fallbacks are sd-scripts' (its docs/config_README). Every key is checked by the reader of the
command-line option it stands for, so a value means the same in both places.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from library.data.specs import DATASET_KEYS, OPTION_NAMES, SUBSET_KEYS, Given
from library.options.data import DataOptions
from library.options.fields import OptionSpec, specs_of
from library.problems import Problems, UserError
from library.text_files import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Keys of sd-scripts' dataset files that Atelier does not have yet, with the values that ask for nothing. This
# table only shrinks.
NOT_YET: dict[str, tuple[Any, ...]] = {
    "alpha_mask": (False,),
    "cache_info": (False,),
    "color_aug": (False,),
    "conditioning_data_dir": (),
    "custom_attributes": ({},),
    "face_crop_aug_range": (),
    "network_multiplier": (1.0,),
    "token_warmup_min": (1,),
    "token_warmup_step": (0,),
    "validation_seed": (),
    "validation_split": (0.0,),
}

ONLY_IN_SUBSETS = ("image_dir", "metadata_file", "is_reg")
ONLY_DREAMBOOTH = ("caption_extension", "class_tokens", "is_reg")

Tables = tuple[Given, Given, list[Given]]  # [general], a dataset, its subsets


def read_dataset_file(path: Path, problems: Problems) -> list[Tables]:
    """The datasets of a file, each with the general table and its subsets; None values count as not given."""
    content = problems.attempt(_parse, path)
    if content is None:
        return []
    for key in sorted(content.keys() - {"general", "datasets"}):
        _explain_unknown(f"{path.name}: {key}", key, ("general", "datasets"), problems)
    general = content.get("general", {})
    general_given = _read_table(general, f"{path.name}: general", (*DATASET_KEYS, *_subset_keys()), problems)
    datasets = _array(content.get("datasets"), f"{path.name}: datasets", problems)
    return [
        (general_given, *_read_dataset(dataset, f"{path.name}: dataset {number}", problems))
        for number, dataset in enumerate(datasets, 1)
    ]


def _parse(path: Path) -> dict[str, Any]:
    """The file's content. Raises UserError, with the line for a syntax error."""
    suffix = path.suffix.lower()
    if suffix not in (".toml", ".json"):
        raise UserError.of(f"--dataset_config {path}", "must be a .toml or .json file")
    text = read_text(path)
    try:
        content = tomllib.loads(text) if suffix == ".toml" else json.loads(text)
    except ValueError as error:
        raise UserError.of(path, f"is not valid {suffix[1:].upper()}: {error}") from error
    if not isinstance(content, dict):
        raise UserError.of(path, "must hold the tables general and datasets")
    return content


def _read_dataset(dataset: Any, where: str, problems: Problems) -> tuple[Given, list[Given]]:
    if not isinstance(dataset, dict):
        problems.add(where, f"must be a table, got {dataset!r}")
        return {}, []
    tables = _array(dataset.get("subsets"), f"{where}: subsets", problems)
    is_metadata = _method(tables, where, problems)
    subsets = [
        _read_subset(table, f"{where}, subset {number}", is_metadata, problems)
        for number, table in enumerate(tables, 1)
    ]
    own = {key: value for key, value in dataset.items() if key != "subsets"}
    allowed = (*DATASET_KEYS, *_subset_keys())
    given = _read_table(own, where, allowed, problems, is_metadata=is_metadata)
    return given, [subset for subset in subsets if subset is not None]


def _method(tables: list[Any], where: str, problems: Problems) -> bool:
    """Whether the subsets are metadata files (fine-tuning) rather than folders (DreamBooth)."""
    kinds = {"metadata_file" in table for table in tables if isinstance(table, dict)}
    if kinds == {True, False}:
        problems.add(
            where,
            "has subsets with and without metadata_file",
            "make two datasets, one for image folders and one for metadata files",
        )
    return kinds == {True}


def _read_subset(table: Any, where: str, is_metadata: bool, problems: Problems) -> Given | None:
    """The subset's keys, or None when it does not say where its images are."""
    given = _read_table(table, where, (*_subset_keys(), *ONLY_IN_SUBSETS), problems, is_metadata=is_metadata)
    if "image_dir" in given or "metadata_file" in given:
        return given
    if isinstance(table, dict) and "image_dir" not in table and "conditioning_data_dir" not in table:
        problems.add(where, "needs image_dir, the folder with the images")
    return None


def _read_table(
    table: Any, where: str, allowed: tuple[str, ...], problems: Problems, *, is_metadata: bool = False
) -> Given:
    """The values of a table, each read and checked by its type. What cannot be used is left out."""
    if not isinstance(table, dict):
        problems.add(where, f"must be a table, got {table!r}")
        return {}
    given: dict[str, tuple[str, Any]] = {}
    for key, value in table.items():
        place = f"{where}: {key}"
        if value is None:
            continue
        if key in NOT_YET:
            if value not in NOT_YET[key]:
                problems.add(place, "is not available yet", "remove it")
        elif key not in allowed:
            _explain_unknown(place, key, allowed, problems)
        elif is_metadata and key in ONLY_DREAMBOOTH:
            problems.add(place, "is for image folders; this dataset has metadata files", "remove it")
        else:
            try:
                given[key] = (place, _READERS[key](value))
            except ValueError as error:
                problems.add(place, str(error))
    return given


def _explain_unknown(place: str, key: str, allowed: tuple[str, ...], problems: Problems) -> None:
    close = difflib.get_close_matches(key, allowed, n=1, cutoff=0.7)
    if key in ONLY_IN_SUBSETS:
        problems.add(place, "belongs in a subset", "move it to [[datasets.subsets]]")
    elif key in DATASET_KEYS:
        problems.add(place, "belongs in a dataset or in [general]", "move it there")
    elif close:
        problems.add(place, "there is no such key", f"did you mean {close[0]}?")
    else:
        problems.add(place, "there is no such key", f"there are: {', '.join(sorted(allowed))}")


def _array(value: Any, where: str, problems: Problems) -> list[Any]:
    if isinstance(value, list) and value:
        return value
    if value is None or value == []:
        problems.add(where, "is missing or empty", "[[datasets]] with [[datasets.subsets]] is needed")
    else:
        problems.add(where, f"must be an array of tables, got {value!r}")
    return []


def _subset_keys() -> tuple[str, ...]:
    """Keys that may stand in a subset, in its dataset or in [general]."""
    return tuple(key for key in SUBSET_KEYS if key not in ONLY_IN_SUBSETS)


def _readers() -> dict[str, Callable[[Any], Any]]:
    by_option = {spec.name: spec for spec in specs_of(DataOptions)}
    keys = (*DATASET_KEYS, *SUBSET_KEYS)
    names = {key: OPTION_NAMES.get(key, key) for key in keys}
    readers = {key: by_option[name].read for key, name in names.items() if name in by_option}
    return readers | {key: _own(key, kind).read for key, kind in _OWN_KEYS.items()}


# Keys without an option of the same meaning.
_OWN_KEYS: dict[str, Any] = {"image_dir": Path, "metadata_file": Path, "is_reg": bool, "class_tokens": str}


def _own(name: str, kind: Any) -> OptionSpec:
    return OptionSpec(name, kind, None, "", convert=None, metavar=None, aliases=(), positional=False)


_READERS = _readers()
