"""An optimizer's state as tensors and text, for runs whose weights are shared out among processes.

    optimizer.safetensors   <number of the weight>.<name>: what the optimizer keeps for each of its weights
    optimizer.json          its groups, and numbers that it keeps for weights

Tensors are whole and are written one after the other, so that no process ever holds all of them; any number
of processes reads them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from library.models.weights import open_tensors
from library.training.position import OPTIMIZER_TENSORS, OPTIMIZER_TEXT, read_json

# The number of a weight and a tensor like it -> what this process keeps of it.
Place = Callable[[int, Tensor], Tensor]


def split_state(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """An optimizer's state dict as the contents of the two files."""
    kept = [(number, name, value) for number, one in state["state"].items() for name, value in one.items()]
    tensors = {f"{number}.{name}": value for number, name, value in kept if isinstance(value, Tensor)}
    plain: dict[str, dict[str, Any]] = {str(number): {} for number in state["state"]}
    for number, name, value in kept:
        if not isinstance(value, Tensor):
            plain[str(number)][name] = value
    return tensors, json.dumps({"param_groups": state["param_groups"], "state": plain}, indent=1)


def has_optimizer_files(folder: Path) -> bool:
    """Whether a state has its optimizer in this form."""
    return (folder / OPTIMIZER_TENSORS).is_file()


def read_optimizer_files(folder: Path, place: Place) -> dict[str, Any]:
    """The state dict again. Raises UserError when a file is damaged, and ValueError for what is no state."""
    text, file = read_json(folder / OPTIMIZER_TEXT), open_tensors(folder / OPTIMIZER_TENSORS)
    if not isinstance(text, dict) or not isinstance(text.get("state"), dict):
        raise ValueError(f"{OPTIMIZER_TEXT}: state is missing")
    state: dict[int, dict[str, Any]] = {}
    for number, kept in text["state"].items():
        if not number.isdecimal() or not isinstance(kept, dict):
            raise ValueError(f"{OPTIMIZER_TEXT}: {number!r} is no weight")
        state[int(number)] = {name: _with_tuples(value) for name, value in kept.items()}
    for name in file.shapes:
        number, _, kind = name.partition(".")
        if not number.isdecimal() or int(number) not in state:
            raise ValueError(f"{OPTIMIZER_TENSORS}: {name!r} is of no weight")
        state[int(number)][kind] = place(int(number), file.read(name))
    groups = text.get("param_groups")
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise ValueError(f"{OPTIMIZER_TEXT}: param_groups is missing")
    for group in groups:
        group |= {key: _with_tuples(value) for key, value in group.items() if key != "params"}
    return {"state": state, "param_groups": groups}


def _with_tuples(value: Any) -> Any:
    """JSON has one kind of list."""
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
