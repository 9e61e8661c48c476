"""Files of hypernetworks, as AUTOMATIC1111 and NovelAI have them, and the same in .safetensors.

    {768: ({"linear.0.weight": ..., ...}, {...}), 320: ..., "layer_structure": [1, 2, 1], ...}

A whole number is the width of what two nets change: what keys are made of, and what values are made of.
NovelAI's files say `linear1` and `linear2`, and nothing else. A .safetensors file has keys such as
`768.0.linear.0.weight` (0: keys, 1: values), and the settings in its metadata.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from library.files import whole_file
from library.models.saving import Saving
from library.models.values import fault_of, refuse_faults
from library.models.weights import is_safetensors, open_tensors, save_objects, save_tensors
from library.problems import UserError

Net = dict[str, Tensor]  # a net's tensors by their names, linear.<place>.weight and .bias
_OF_NOVELAI = {"linear1": "linear.0", "linear2": "linear.1"}


@dataclass(frozen=True)
class Structure:
    """How a hypernetwork's nets are built; the names are AUTOMATIC1111's.

    layer_structure: the width of each layer, in units of the net's own; the first and the last are 1.
    activation_func: what stands behind a linear layer; "linear": nothing.
    is_layer_norm: whether layer normalization follows.
    activate_output: whether the activation stands behind the last layer too.
    dropout_structure: the probability of dropping a value behind each layer, the input being the first.
    """

    layer_structure: tuple[float, ...] = (1, 2, 1)
    activation_func: str = "linear"
    is_layer_norm: bool = False
    activate_output: bool = True
    dropout_structure: tuple[float, ...] | None = None


def read_hypernetwork(path: Path) -> tuple[dict[tuple[int, int], Net], Structure]:
    """The nets in a file, by their width and 0 (keys) or 1 (values), and how they are built.

    Raises UserError when it cannot be read, is none, or holds values that no weights have.
    """
    file = open_tensors(path)
    nets: dict[tuple[int, int], Net] = {}
    for key in file.shapes:
        width, _, rest = key.partition(".")
        half, _, name = rest.partition(".")
        if not (width.isdecimal() and half in ("0", "1") and name.startswith("linear")):
            raise UserError.of(path, "is no hypernetwork", f"it has e.g. {key}")
        first, _, last = name.partition(".")
        own = nets.setdefault((int(width), int(half)), {})
        own[f"{_OF_NOVELAI[first]}.{last}" if first in _OF_NOVELAI else name] = file.read(key)
    for size, which in nets:
        if (size, 1 - which) not in nets:
            raise UserError.of(path, f"has one net of two for the width {size}", "get the file again")
    if not nets:
        raise UserError.of(path, "is no hypernetwork: it holds no nets")
    faults = {
        f"{size}.{which}.{name}": fault
        for (size, which), net in nets.items()
        for name, tensor in net.items()
        if (fault := fault_of(tensor))
    }
    refuse_faults(path, faults)
    return nets, _structure(path, file.metadata)


def write_hypernetwork(
    path: Path, nets: Mapping[tuple[int, int], Net], structure: Structure, saving: Saving
) -> None:
    """Write a file whole, in the format of its suffix."""
    cast = {key: {name: _saved(t, saving) for name, t in net.items()} for key, net in nets.items()}
    metadata = dict(saving.metadata or {})
    settings: dict[str, Any] = {
        "step": int(metadata.get("ss_steps", saving.step)),
        "name": metadata.get("ss_output_name", path.stem),
        "layer_structure": list(structure.layer_structure),
        "activation_func": structure.activation_func,
        "is_layer_norm": structure.is_layer_norm,
        "weight_initialization": "Normal",
        "use_dropout": any(structure.dropout_structure or ()),
        "sd_checkpoint": metadata.get("ss_sd_model_hash"),
        "sd_checkpoint_name": metadata.get("ss_sd_model_name"),
        "activate_output": structure.activate_output,
        "last_layer_dropout": False,
        "dropout_structure": None
        if structure.dropout_structure is None
        else list(structure.dropout_structure),
        "optional_info": None,
    }
    if is_safetensors(path):
        flat = {f"{w}.{half}.{name}": t for (w, half), net in cast.items() for name, t in net.items()}
        told = {name: str(value) for name, value in settings.items() if value is not None}
        save_tensors(path, flat, metadata | told)
        return
    content: dict[Any, Any] = {w: (cast[w, 0], cast[w, 1]) for w in sorted({width for width, _ in cast})}
    with whole_file(path) as temporary:
        save_objects(temporary, content | settings)


def dropouts(structure: tuple[float, ...], probability: float, *, last: bool = True) -> tuple[float, ...]:
    """The probability behind each layer: of hidden ones; `last`: of the last of them too."""
    hidden = [probability] * (len(structure) - 2)
    if hidden and not last:
        hidden[-1] = 0.0
    return (0.0, *hidden, 0.0)


def _saved(tensor: Tensor, saving: Saving) -> Tensor:
    return tensor.detach().to("cpu", saving.dtype).contiguous().clone()


def _structure(path: Path, told: Mapping[str, str]) -> Structure:
    """The settings in a file; what it does not say is as AUTOMATIC1111 takes it."""
    values: dict[str, Any] = {}
    for name in ("layer_structure", "is_layer_norm", "activate_output", "dropout_structure", "use_dropout"):
        if told.get(name, "None") != "None":
            try:
                values[name] = ast.literal_eval(told[name])
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                raise UserError.of(path, f"its {name} is {told[name][:40]!r}", "get the file again") from None
    layers = _numbers(path, "layer_structure", values.get("layer_structure", [1, 2, 1]))
    if len(layers) < 2 or (layers[0], layers[-1]) != (1, 1) or min(layers) <= 0:
        raise UserError.of(path, f"its layer_structure is {list(layers)}, which must begin and end in 1")
    drops = values.get("dropout_structure")
    if drops is None and values.get("use_dropout"):
        drops = dropouts(layers, 0.3, last=told.get("last_layer_dropout") == "True")
    activation = told.get("activation_func", "linear").lower()
    return Structure(
        layer_structure=layers,
        activation_func="linear" if activation == "none" else activation,
        is_layer_norm=bool(values.get("is_layer_norm", False)),
        activate_output=bool(values.get("activate_output", True)),
        dropout_structure=None if drops is None else _numbers(path, "dropout_structure", drops),
    )


def _numbers(path: Path, name: str, values: Any) -> tuple[float, ...]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(n, (int, float)) for n in values):
        raise UserError.of(path, f"its {name} is no list of numbers", "get the file again")
    return tuple(values)
