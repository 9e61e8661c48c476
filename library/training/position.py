"""The position of a state: its train_state.json, read before anything else of it is loaded."""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from library.files import restore_folder
from library.problems import UserError


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
    folder: str = ""

    @classmethod
    def from_json(cls, found: dict[str, Any], folder: Path) -> StateInfo:
        """Raises UserError when a field without a default is missing, because another program wrote the file,
        or a field has the wrong type.
        """
        if not isinstance(found, dict):
            found = {}
        wanted = {field.name: field for field in fields(cls) if field.name != "folder"}
        needed = {name for name, field in wanted.items() if field.default_factory is MISSING}
        if needed - found.keys():
            cause = "was not written by Atelier; its position cannot be gone on from exactly"
            raise UserError.of(folder, cause)
        hints = get_type_hints(cls)
        for name in wanted.keys() & found.keys():
            kind = get_origin(hints[name]) or hints[name]
            is_of_kind = isinstance(found[name], (int, float) if kind is float else kind)
            if not is_of_kind or (kind is int and found[name] < 0):
                raise UserError.of(folder / "train_state.json", f"{name} cannot be {found[name]!r}")
        info = cls(**{name: found[name] for name in wanted if name in found}, folder=str(folder))
        if info.steps_per_epoch < 1:
            raise UserError.of(folder / "train_state.json", "an epoch has at least one step")
        return info


def read_state_info(folder: Path) -> StateInfo:
    """The position of a state. Raises UserError when the folder is not a state of ours."""
    restore_folder(folder)  # a save that was killed may have left it renamed
    if not folder.is_dir():
        raise UserError.of(folder, "there is no such state folder", "give a folder that ends in -state")
    missing = [
        name
        for name in ("model.safetensors", "optimizer.bin", "train_state.json")
        if not (folder / name).is_file()
    ]
    if missing:
        raise UserError.of(folder, f"is no training state: {', '.join(missing)} missing")
    try:
        found = json.loads((folder / "train_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError.of(folder / "train_state.json", f"cannot be read: {error}") from None
    return StateInfo.from_json(found, folder)
