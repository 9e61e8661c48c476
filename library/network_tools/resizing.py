"""Networks at another rank: the best LoRA of each layer's change at a rank that is given or chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from library.network_tools.changes import Changes
from library.network_tools.factors import Criterion, Factors, choose_rank
from library.network_tools.merging import Progress


@dataclass(frozen=True)
class Resized:
    """A module at its new rank.

    factors: its change.
    before: its rank in the file that was read.
    error: the norm of what was lost, relative to the change's norm.
    energy: the squared norm of the whole change.
    kept: the share of the sum of singular values that is left.
    """

    factors: Factors
    before: int
    error: float
    energy: float
    kept: float


def resize(
    changes: Changes,
    *,
    rank: int,
    conv_rank: int,
    criterion: Criterion | None,
    share: float,
    device: torch.device,
    progress: Progress = iter,
) -> Iterator[tuple[str, Resized]]:
    """Each module of a network at its new rank.

    rank, conv_rank: of linear layers and of convolutions, 1x1 ones too; the most, with a criterion.
    criterion, share: see `choose_rank`.
    """
    for name in progress(changes.shapes):
        whole = changes.read(name)
        most = conv_rank if len(whole.shape) == 4 else rank
        on_device = Factors(whole.up.to(device), whole.down.to(device), whole.shape)
        # The sum of all values, which that criterion is about, takes all of them.
        spectrum = on_device.decompose(None if criterion == "sv_cumulative" else most)
        chosen = choose_rank(spectrum, most, criterion, share)
        factors = spectrum.factors(chosen)
        total = float(spectrum.values.sum())
        yield (
            name,
            Resized(
                factors=Factors(factors.up.cpu(), factors.down.cpu(), factors.shape),
                before=whole.rank,
                error=spectrum.error(chosen),
                energy=spectrum.energy,
                kept=float(spectrum.values[:chosen].sum()) / total if total else 1.0,
            ),
        )
