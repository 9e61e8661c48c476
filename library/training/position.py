"""The position of a state: its train_state.json, read before anything else of it is loaded."""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from library.files import restore_folder
from library.problems import UserError

_NEEDED_FILES = ("model.safetensors", "optimizer.bin", "train_state.json")
LEARNED_FILES = (*_NEEDED_FILES, "ema.safetensors", "scaler.pt")
# These only tell of a run. A damaged one is left behind with a warning: no weight needs it.
PICTURES = "pictures.json"
TOLD_FILES = ("ledger.safetensors", "history.json", PICTURES)
MOST_JSON = 2**26  # bytes of a JSON file in a state
_MOST = 10**9  # steps and epochs
_INFINITE = 1e300  # what is larger could not be formatted or multiplied
_DEEPEST = 8  # lists in lists
_FIX = "resume from another state"

Unit = Literal["epoch", "step"]


@dataclass(frozen=True)
class Save:
    """A result or state that a run, or one that it goes on from, wrote as it went.

    name: in the output folder.
    unit: after how many of which it was saved.
    number: how many.
    is_state: whether it is a state.
    content: a fingerprint of what was written; empty in the entry that a state has of itself.
    """

    name: str
    unit: Unit
    number: int
    is_state: bool
    content: str


@dataclass(frozen=True)
class StateInfo:
    """The contents of train_state.json.

    current_epoch: (1-based) epoch of the last step; a name of sd-scripts, as the next one.
    current_step: steps done.
    seed: of the run.
    steps_per_epoch: of the run that wrote it.
    optimizer: the optimizer's class; another one could not read its state.
    data: fingerprint of the batches; only with the same one a step number means the same batches.
    standing: results of validation so far.
    settings: of the run, see saving/settings.py.
    log: where each tracker writes; a resumed run continues there.
    bad_steps: steps skipped in a row up to this one, see optimization/guard.py.
    saves: what was saved so far and may be removed when it is too old.
    run: its id in a queue; empty outside of one.
    folder: the state's folder; not in the file.
    """

    current_epoch: int
    current_step: int
    seed: int
    steps_per_epoch: int
    optimizer: str
    data: str
    standing: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    log: dict[str, str] = field(default_factory=dict)
    bad_steps: float = field(default_factory=float)
    saves: list[Save] = field(default_factory=list)
    run: str = field(default_factory=str)
    folder: str = ""

    @classmethod
    def from_json(cls, found: Any, folder: Path) -> StateInfo:
        """Raises UserError when a field without a default is missing, because another program wrote the file,
        or a field cannot have its value.
        """
        if not isinstance(found, dict):
            found = {}
        wanted = {field.name: field for field in fields(cls) if field.name != "folder"}
        needed = {name for name, field in wanted.items() if field.default_factory is MISSING}
        if needed - found.keys():
            cause = "was not written by Atelier; its position cannot be gone on from exactly"
            raise UserError.of(folder, cause)
        values = {name: found[name] for name in wanted if name in found}
        for name, value in values.items():
            if not _CAN_BE[name](value):
                cause = f"{name} cannot be {reprlib.repr(value)}"
                raise UserError.of(folder / "train_state.json", cause, _FIX)
        values["saves"] = [Save(**save) for save in values.get("saves", ())]
        return cls(**values, folder=str(folder))


def read_state_info(folder: Path) -> StateInfo:
    """The position of a state. Raises UserError when the folder is not a state of ours."""
    restore_folder(folder)  # a save that was killed may have left it renamed
    if not folder.is_dir():
        raise UserError.of(folder, "there is no such state folder", "give a folder that ends in -state")
    missing = [name for name in _NEEDED_FILES if not os.path.lexists(folder / name)]
    if missing:
        raise UserError.of(folder, f"is no training state: {', '.join(missing)} missing")
    for name in LEARNED_FILES:  # a pipe would be waited for
        if os.path.lexists(folder / name) and not (folder / name).is_file():
            raise UserError.of(folder / name, "is no file", _FIX)
    return StateInfo.from_json(read_json(folder / "train_state.json"), folder)


def read_json(path: Path) -> Any:
    """The contents of a JSON file in a state. Raises UserError when it cannot be read or is too large."""
    try:
        if not path.is_file():
            raise UserError.of(path, "is no file", _FIX)
        if path.stat().st_size > MOST_JSON:
            raise UserError.of(path, f"is larger than {MOST_JSON >> 20} MiB", _FIX)
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError.of(path, f"cannot be read: {error}", _FIX) from None


def _count(least: int, most: int = _MOST) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    """A number that can be computed with, so no NaN or infinity; true and false are none."""
    return type(value) in (int, float) and abs(value) < _INFINITE


def _is_setting(value: Any, depth: int = 0) -> bool:
    """A plain value, a list of settings, or a model by its name and content."""
    if isinstance(value, list):
        return depth < _DEEPEST and all(_is_setting(one, depth + 1) for one in value)
    if isinstance(value, dict):
        return all(isinstance(value.get(key), str) for key in ("name", "content"))
    return value is None or isinstance(value, (str, bool, int, float))


def _is_table_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _is_standing(value: Any) -> bool:
    """Nothing, or every field of Standing in watching/standing.py."""
    return value == {} or _has(value, _STANDING)


def _are_saves(value: Any) -> bool:
    return isinstance(value, list) and all(_has(save, _SAVE) for save in value)


def _is_plain_name(name: Any) -> bool:
    """Not a path, which could lead out of the folder."""
    return isinstance(name, str) and name not in ("", ".", "..") and not any(sign in name for sign in "/\\\0")


def _has(value: Any, checks: Mapping[str, Callable[[Any], bool]]) -> bool:
    """Whether it is a table with just these keys and with values that pass."""
    is_whole = isinstance(value, dict) and value.keys() == checks.keys()
    return is_whole and all(check(value[name]) for name, check in checks.items())


_SAVE: dict[str, Callable[[Any], bool]] = {
    "name": _is_plain_name,
    "unit": lambda value: value in get_args(Unit),
    "number": _count(0),
    "is_state": lambda value: isinstance(value, bool),
    "content": _is_text,
}
_STANDING: dict[str, Callable[[Any], bool]] = {
    "pictures": _is_text,
    "best": lambda value: value is None or _is_number(value),
    "best_step": _count(0),
    "since": _count(0),
    "measured_step": _count(-1),
}
_CAN_BE: dict[str, Callable[[Any], bool]] = {
    "current_epoch": _count(0),
    "current_step": _count(0),
    "seed": _count(0, 2**63 - 1),
    "steps_per_epoch": _count(1),
    "optimizer": _is_text,
    "data": _is_text,
    "standing": _is_standing,
    "settings": _is_table_of(_is_setting),
    "log": _is_table_of(_is_plain_name),
    "bad_steps": lambda value: _is_number(value) and value >= 0,
    "saves": _are_saves,
    "run": _is_text,
}
