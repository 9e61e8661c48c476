"""The moving averages that original checkpoints carry beside their weights."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from library.models.pruning import EMA, ema_name
from library.models.sources import Source
from library.models.weights import open_tensors

LONG_AGO = 10**6  # updates of averages that do not say how many they had


def read_averages(source: Source | None, names: Iterable[str]) -> tuple[dict[str, Tensor], int]:
    """A single file's averages by the names of their weights, for the weights of these names, and how many
    steps are in them. Without any: ({}, 0). Raises UserError when the file cannot be read.
    """
    if source is None or source.kind == "diffusers":
        return {}, 0
    file = open_tensors(source.path)
    found = {name: file.read(ema_name(name)) for name in names if ema_name(name) in file.shapes}
    counter = f"{EMA}num_updates"
    updates = int(file.read(counter)) if counter in file.shapes else LONG_AGO
    return found, updates if found else 0
