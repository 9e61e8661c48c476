"""What the commands that merge networks share: their checks and what they write."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from library.console import activity, progress_bar
from library.models.merging import find_device
from library.models.single_files import check_output, size_of
from library.models.weights import dtype_of, read_header
from library.network.block_weights import read_block_weights
from library.network_tools.against_model import ChangesOfModel, open_changes_of, warn_of_idle_model
from library.network_tools.factors import Factors
from library.network_tools.merging import Term, check_terms, merge
from library.network_tools.writing import describe_sizes, lora_tensors, merged_metadata, save_lora
from library.options.network_tools import BlockWeightOptions, MergedRankOptions, MergeNetworksOptions
from library.problems import Problems, UserError


def read_terms(options: MergeNetworksOptions, blocks: BlockWeightOptions | None = None) -> list[Term]:
    """The networks to merge. Raises UserError with everything that is wrong with them and the target."""
    problems = Problems()
    problems.attempt(check_output, options.save_to, options.models)
    weights = problems.attempt(read_block_weights_of, options, blocks)
    opened = [problems.attempt(open_changes_of, path, options.base_model) for path in options.models]
    problems.raise_if_any()
    terms = [
        Term(changes, ratio, block)
        for changes, ratio, block in zip(opened, options.ratios, weights or [], strict=True)
        if changes is not None
    ]
    check_terms(terms)
    warn_of_idle_model(options.base_model, *(term.changes for term in terms))
    return terms


def merge_into_one(
    options: MergeNetworksOptions,
    terms: Sequence[Term],
    rank: Callable[[Sequence[Factors]], int | None],
    finish: Callable[[Factors], Factors] | None = None,
) -> None:
    """Write the sum of networks as a LoRA and say what its ranks could not hold.

    rank: as for `merge`.
    finish: what is done to each module's factors at last.
    """
    merged = merge(
        terms,
        rank=rank,
        device=find_device(options.device),
        progress=lambda names: progress_bar(names, desc="merging", unit="module"),
    )
    modules = merged.modules
    write_lora(options, {name: finish(change) for name, change in modules.items()} if finish else modules)
    if merged.error:
        print(f"the ranks hold all but {merged.error:.2%} of the sum's norm")


def write_lora(options: MergeNetworksOptions, modules: dict[str, Factors]) -> None:
    """Write changes as a LoRA for the model of the first network merged."""
    tensors = lora_tensors(
        modules, None if options.save_precision is None else dtype_of(options.save_precision)
    )
    files = [(path, read_header(path).metadata) for path in options.models]
    told = merged_metadata(files, options.save_to, minimal=options.no_metadata)
    with activity(f"saving {options.save_to}"):
        save_lora(options.save_to, tensors, told | describe_sizes(tensors))
    names = " + ".join(path.name for path in options.models)
    print(f"{names} -> {options.save_to} ({size_of(options.save_to)})")


def merge_as_asked(options: MergeNetworksOptions, ranks: MergedRankOptions, terms: Sequence[Term]) -> None:
    """`merge_into_one` with the ranks that a plain merge gives: all with --concat, else at most --new_rank or
    those of the largest network.
    """

    whole = [term.changes.file.path for term in terms if isinstance(term.changes, ChangesOfModel)]
    if whole and ranks.new_rank is None:
        raise UserError.of(whole[0], "has no rank that the result could have", "give --new_rank")

    def most(changes: Sequence[Factors]) -> int | None:
        return None if ranks.concat else ranks.new_rank or max(change.rank for change in changes)

    merge_into_one(options, terms, most, finish=shuffled if ranks.shuffle else None)


def shuffled(factors: Factors) -> Factors:
    """The same change with its ranks in a random order."""
    order = torch.randperm(factors.rank)
    return Factors(factors.up[:, order], factors.down[order], factors.shape)


def read_block_weights_of(
    options: MergeNetworksOptions, blocks: BlockWeightOptions | None
) -> list[tuple[float, ...] | None]:
    """The block weights of each network, None where it has none. Raises UserError for lists that are none."""
    if blocks is None or not blocks.lbws:
        return [None] * len(options.models)
    if len(blocks.lbws) != len(options.models):
        raise UserError.of("--lbws", f"has {len(blocks.lbws)} lists for {len(options.models)} models")
    try:
        return [read_block_weights(text) for text in blocks.lbws]
    except ValueError as error:
        raise UserError.of("--lbws", str(error)) from None
