"""The moving averages in original checkpoints."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from library.models.pruning import EMA, ema_name
from library.models.sources import Source
from library.models.weights import open_tensors

LONG_AGO = 10**6  # number of updates of averages that do not say it


def read_averages(source: Source | None, names: Iterable[str]) -> tuple[dict[str, Tensor], int]:
    """A single file's averages of these weights, by the weights' names, and how many steps they average.

    ({}, 0) if there are none. Raises UserError when the file cannot be read.
    """
    if source is None or source.kind == "diffusers":
        return {}, 0
    file = open_tensors(source.path)
    found = {name: file.read(ema_name(name)) for name in names if ema_name(name) in file.shapes}
    counter = f"{EMA}num_updates"
    updates = int(file.read(counter)) if counter in file.shapes else LONG_AGO
    return found, updates if found else 0
