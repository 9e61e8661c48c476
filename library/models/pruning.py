"""Checkpoints reduced to what is needed to use them: no optimizers, averaged weights or noise tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from library.models.detection import detect_family
from library.models.parts import MARKS, PART_NAMES, part_of, sound_positions
from library.models.single_files import find_file
from library.models.sources import Source
from library.models.values import all_finite, fault_of, refuse_faults
from library.models.weights import open_tensors, read_header
from library.options.model_tools import PartName
from library.problems import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

EMA = "model_ema."


def plan_pruning(name: str, keep: Collection[PartName] = PART_NAMES, *, ema: bool = False) -> dict[str, str]:
    """Name in the result -> name in the file. Reads the header only.

    keep: the parts to keep.
    ema: take the averaged weights as the U-Net's.
    Raises UserError when the file is no checkpoint, has none of these parts, or lacks averages.
    """
    source = find_file(name)
    header = read_header(source.path)
    if not any(part_of(own) == "unet" for own in header.shapes):
        detect_family(source)  # says what it is instead
    plan = {own: own for own in sorted(header.shapes) if part_of(own) in keep}
    if not plan:
        raise UserError.of(name, f"holds no {' and no '.join(keep)}", "choose other parts")
    plan = _averaged(source, plan, header.shapes) if ema else plan
    marks = MARKS if "unet" in keep else ()
    return plan | {mark: mark for mark in marks if mark in header.shapes}


def prune(
    source: Source,
    plan: Mapping[str, str],
    *,
    dtype: torch.dtype | None,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> dict[str, Tensor]:
    """The tensors of a plan.

    dtype: of floating-point tensors; None keeps each one's.
    progress: wraps the names, for a progress bar.
    Raises UserError when a value is no number, or overflows dtype.
    """
    file, result = open_tensors(source.path), {}
    faults: dict[str, str] = {}
    for name in progress(plan):
        tensor = sound_positions(name, file.read(plan[name]))
        if tensor.is_floating_point() and (fault := fault_of(tensor)):
            faults[name] = fault
        elif dtype is not None and tensor.is_floating_point():
            cast = tensor.to(dtype)
            if not all_finite(cast):
                cause = f"{name} has values that are too large for {str(dtype).removeprefix('torch.')}"
                raise UserError.of(source.name, cause, "choose another --saving_precision")
            tensor = cast
        result[name] = tensor
    refuse_faults(source.name, faults)
    return result


def ema_name(name: str) -> str:
    """The name of a tensor's average: the U-Net's name without dots (CompVis' LitEma)."""
    return EMA + name.removeprefix("model.").replace(".", "")


def _averaged(source: Source, plan: dict[str, str], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    averages = {name: ema_name(name) for name in plan if part_of(name) == "unet"}
    missing = [name for name, average in averages.items() if shapes.get(average) != shapes[name]]
    if missing or not averages:
        count = f"{len(averages) - len(missing)} of {len(averages)}"
        cause = f"has averaged weights (model_ema.) for {count} tensors of its U-Net"
        raise UserError.of(source.name, cause, "leave --ema out")
    return plan | averages
