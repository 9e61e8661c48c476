"""A DyLoRA as LoRAs of lower ranks: its first ranks are a network by themselves."""

from __future__ import annotations

from library.console import activity
from library.models.single_files import check_output, kept_metadata, size_of
from library.network_tools.changes import Changes, open_changes
from library.network_tools.factors import Factors
from library.network_tools.writing import describe_sizes, lora_tensors, save_lora
from library.options.network_tools import SplitNetworkOptions
from library.problems import Problems, UserError


def split_file(options: SplitNetworkOptions) -> None:
    """Write a file for each multiple of the unit below the rank. Scales stay what they are."""
    problems = Problems()
    changes = problems.attempt(open_changes, options.model)
    problems.raise_if_any()
    assert changes is not None
    ranks = set(changes.file.ranks.values())
    if changes.file.kind != "lora":
        raise UserError.of(options.model, "is no LoRA", "a DyLoRA's file is one")
    if len(ranks) > 1:
        raise UserError.of(options.model, f"has modules of ranks {min(ranks)} to {max(ranks)}: no DyLoRA")
    whole = ranks.pop()
    if options.unit >= whole:
        raise UserError.of("--unit", f"is {options.unit}, the network's rank is {whole}", "give a lower one")
    targets = {
        rank: options.save_to.with_name(f"{options.save_to.stem}-{rank:04d}{options.save_to.suffix}")
        for rank in range(options.unit, whole, options.unit)
    }
    for target in targets.values():
        problems.attempt(check_output, target, [options.model])
    problems.raise_if_any()
    for rank, target in targets.items():
        tensors = lora_tensors(_first(changes, rank), scales=_scales(changes))
        told = {key: text for key, text in changes.file.metadata.items() if key.startswith("ss_")}
        told |= kept_metadata(changes.file.metadata, target) | describe_sizes(tensors)
        with activity(f"saving {target}"):
            save_lora(target, tensors, told)
        print(f"{options.model} -> {target} ({size_of(target)}): rank {rank} of {whole}")


def _first(changes: Changes, rank: int) -> dict[str, Factors]:
    """Each module's change with its first ranks alone."""
    found = {}
    for name in changes.shapes:
        whole = changes.read(name)
        found[name] = Factors(whole.up[:, :rank], whole.down[:rank], whole.shape)
    return found


def _scales(changes: Changes) -> dict[str, float]:
    return {name: abs(changes.scale(name)) for name in changes.shapes}
