"""Whether what a state's files hold fits the run that resumes it: every name, type and shape, before use.

Raises UserError for a file that names code, and ValueError for whatever else is wrong.
"""

from __future__ import annotations

import pickletools
import re
import reprlib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.models.pickles import code_found
from library.models.weights import open_tensors

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_MOST_PICKLE = 2**28  # bytes, as in models/torch_files.py
# All that optimizers' states name.
_NAMES = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v[23]|parameter)|torch (\w+Storage|Size|u?int\d+"
    r"|float\w*|bfloat16|bool)|torch\.storage (Untyped|Typed)Storage|torch\.serialization _get_layout"
)
_OTHER_CODE = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}
# What optimizers keep for each weight, by its name in torch, bitsandbytes, schedulefree and others.
_LIKE_WEIGHTS = {
    *("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "grad_avg", "acc_delta"),
    *("exp_inf", "sum", "z", "state1", "state2"),
}
_SMALL = 4096  # values: tables and scalars beside a weight


def read_tensors(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, which must be those expected by name, shape and type, and finite.

    Raises UserError when the file is damaged, and ValueError when it does not fit.
    """
    file = open_tensors(path)
    if missing := expected.keys() - file.shapes.keys():
        raise ValueError(f"{path.name}: {min(missing)} is missing")
    if strange := file.shapes.keys() - expected.keys():
        raise ValueError(f"{path.name}: {reprlib.repr(min(strange))} is not of this run")
    tensors = {}
    for name, own in expected.items():
        if file.shapes[name] != tuple(own.shape):
            raise ValueError(f"{path.name}: {name} is {file.shapes[name]}, this run has {tuple(own.shape)}")
        tensors[name] = tensor = file.read(name)
        if tensor.dtype != own.dtype:
            raise ValueError(f"{path.name}: {name} is {tensor.dtype}, this run has {own.dtype}")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{path.name}: {name} has values that are no numbers")
    return tensors


def read_objects(path: Path) -> Any:
    """What torch.save wrote. A file that names code, or is larger unpacked than packed, is not opened."""
    import torch

    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError(f"{path.name}: it is compressed, which torch does not do")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError(f"{path.name}: it is cut off")
        pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
        if len(pickles) != 1 or pickles[0].file_size > _MOST_PICKLE:
            raise ValueError(f"{path.name}: it is not what torch writes")
        for instruction, argument, _ in pickletools.genops(archive.read(pickles[0])):
            named = instruction.name == "GLOBAL" and not _NAMES.fullmatch(str(argument))
            if named or instruction.name in _OTHER_CODE:
                raise code_found(path, argument or instruction.name)
    return torch.load(path, map_location="cpu", weights_only=True)


def check_optimizer(state: Any, optimizer: torch.optim.Optimizer) -> None:
    """Check an optimizer's state dict. optimizer: the one that gets it, as its package made it."""
    groups, values = _part(state, "param_groups", list), _part(state, "state", dict)
    if len(groups) != len(optimizer.param_groups):
        raise ValueError(f"it has {len(groups)} groups, this run has {len(optimizer.param_groups)}")
    shapes: dict[int, Tensor] = {}
    for group, own in zip(groups, optimizer.param_groups, strict=True):
        numbers = _part(group, "params", list)
        if len(numbers) != len(own["params"]) or not all(type(number) is int for number in numbers):
            raise ValueError("a group has other weights than this run's")
        shapes |= dict(zip(numbers, own["params"], strict=True))
        for key in group.keys() & own.keys() - {"params"}:
            _check_alike(key, group[key], own[key])
    if len(shapes) != sum(len(group["params"]) for group in optimizer.param_groups):
        raise ValueError("two weights have one number")
    for number, kept in values.items():
        if number not in shapes or not isinstance(kept, dict):
            raise ValueError(f"{reprlib.repr(number)} is no weight of this run")
        for key, value in kept.items():
            _check_kept(key, value, shapes[number])


def check_numbers(state: Any, own: Mapping[str, Any]) -> None:
    """Check a loss scaler's state: the numbers of this run's, none negative."""
    if not isinstance(state, dict) or state.keys() != own.keys():
        raise ValueError("the loss scaler's state is another")
    for key, value in state.items():
        if type(value) not in (int, float) or not 0 <= value < float("inf"):
            raise ValueError(f"{key} cannot be {reprlib.repr(value)}")


def _part(state: Any, key: str, kind: type) -> Any:
    found = state.get(key) if isinstance(state, dict) else None
    if not isinstance(found, kind):
        raise ValueError(f"{key} is missing")
    return found


def _check_alike(key: str, value: Any, own: Any) -> None:
    """A group's value must be of the kind that this run's group has; None stands for any."""
    import torch

    if value is None or own is None:
        return
    if isinstance(own, (bool, int, float)) or isinstance(value, (bool, int, float)):
        single = isinstance(value, torch.Tensor) and value.numel() == 1
        if not single and not isinstance(value, (bool, int, float)):
            raise ValueError(f"{key} cannot be {reprlib.repr(value)}")
        if value != value:
            raise ValueError(f"{key} is no number")
    elif not isinstance(value, type(own)) and not (
        isinstance(own, (tuple, list)) and isinstance(value, (tuple, list))
    ):
        raise ValueError(f"{key} cannot be {reprlib.repr(value)}")


def _check_kept(key: Any, value: Any, weight: Tensor) -> None:
    """What an optimizer keeps for a weight: tensors no larger than it, or small ones, and numbers."""
    import torch

    if key in _LIKE_WEIGHTS and not (isinstance(value, torch.Tensor) or value is None):
        raise ValueError(f"{key} cannot be {reprlib.repr(value)}")
    if key in _LIKE_WEIGHTS and value is not None and value.shape != weight.shape:
        raise ValueError(f"{key} is {tuple(value.shape)}, its weight {tuple(weight.shape)}")
    for one in value.values() if isinstance(value, dict) else (value,):
        _check_value(key, one, weight)


def _check_value(key: Any, value: Any, weight: Tensor) -> None:
    import torch

    if isinstance(value, torch.Tensor):
        if value.numel() > max(weight.numel(), _SMALL):
            raise ValueError(f"{key} is {tuple(value.shape)}, its weight {tuple(weight.shape)}")
        if value.is_floating_point() and value.isnan().any():
            raise ValueError(f"{key} has values that are no numbers")
        if key == "step" and value.numel() != 1:
            raise ValueError("step is no number")
    elif not _is_plain(value if isinstance(value, (list, tuple)) else (value,)):
        raise ValueError(f"{key} cannot be {reprlib.repr(value)}")
    if key == "step" and not (isinstance(value, (int, float, torch.Tensor)) and 0 <= value < 2**53):
        raise ValueError(f"step cannot be {reprlib.repr(value)}")


def _is_plain(values: Iterable[Any]) -> bool:
    return all(
        value is None or (isinstance(value, (bool, int, float)) and value == value) for value in values
    )
