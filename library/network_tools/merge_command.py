"""What the commands do that merge networks into one another or into a checkpoint."""

from __future__ import annotations

from library.network_tools.commands import merge_as_asked, read_terms
from library.options.network_tools import (
    BlockWeightOptions,
    CheckpointTargetOptions,
    MergedRankOptions,
    MergeNetworksOptions,
)


def merge_networks(
    options: MergeNetworksOptions,
    target: CheckpointTargetOptions,
    ranks: MergedRankOptions,
    blocks: BlockWeightOptions | None = None,
    *,
    family: str | None = None,
) -> None:
    """Write what the options ask for.

    family: the only one that the command merges into checkpoints of, a name in FAMILIES; None: any.
    """
    if target.sd_model is None:
        merge_as_asked(options, ranks, read_terms(options, blocks))
        return
    from library.network_tools.into_checkpoint import merge_into_checkpoint

    merge_into_checkpoint(options, target.sd_model, family or ("sd2" if target.v2 else None), blocks)
