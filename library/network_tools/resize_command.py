"""What `networks/resize_lora.py` does."""

from __future__ import annotations

from collections.abc import Mapping

from library.console import activity, progress_bar
from library.models.merging import find_device
from library.models.single_files import check_output, size_of
from library.models.weights import dtype_of
from library.network_tools.against_model import open_changes_of, warn_of_idle_model
from library.network_tools.changes import Changes
from library.network_tools.resizing import Resized, resize
from library.network_tools.writing import DYNAMIC, describe_sizes, lora_tensors, save_lora
from library.options.network_tools import ResizeNetworkOptions
from library.problems import Problems


def resize_file(options: ResizeNetworkOptions) -> None:
    """Write a network at its new rank and say what was lost."""
    problems = Problems()
    problems.attempt(check_output, options.save_to, [options.model])
    changes = problems.attempt(open_changes_of, options.model, options.base_model)
    device = problems.attempt(find_device, options.device)
    problems.raise_if_any()
    assert changes is not None and device is not None
    warn_of_idle_model(options.base_model, changes)
    resized = dict(
        resize(
            changes,
            rank=options.new_rank,
            conv_rank=options.new_conv_rank or options.new_rank,
            criterion=options.dynamic_method,
            share=options.dynamic_param or 0.0,
            device=device,
            progress=lambda names: progress_bar(names, desc="resizing", unit="module"),
        )
    )
    if options.verbose:
        for name, module in resized.items():
            kept = f"all but {module.error:.2%} of its norm, {module.kept:.2%} of its values"
            print(f"{name}: rank {module.before} -> {module.factors.rank}, {kept}")
    tensors = lora_tensors(
        {name: module.factors for name, module in resized.items()},
        None if options.save_precision is None else dtype_of(options.save_precision),
        {name: abs(changes.scale(name)) for name in changes.shapes},
    )
    told = dict(changes.file.metadata) | describe_sizes(tensors)
    told |= {"ss_training_comment": _comment(options, changes), "modelspec.title": options.save_to.stem}
    with activity(f"saving {options.save_to}"):
        save_lora(options.save_to, tensors, told)
    _tell(options, resized)


def _comment(options: ResizeNetworkOptions, changes: Changes) -> str:
    """ss_training_comment, with what was done before it, as other tools write it."""
    linear = [name for name, shape in changes.shapes.items() if shape[2:] in ((), (1, 1))]
    ranks = {changes.file.ranks.get(name) for name in linear or changes.shapes}
    before = (ranks.pop() if len(ranks) == 1 else None) or DYNAMIC
    if options.dynamic_method is None:
        conv = "" if options.new_conv_rank is None else f" (conv: {options.new_conv_rank})"
        done = f"dimension is resized from {before} to {options.new_rank}{conv}"
    else:
        done = f"Dynamic resize with {options.dynamic_method}: {options.dynamic_param:g} from {before}"
    return "; ".join(filter(None, [done, changes.file.metadata.get("ss_training_comment")]))


def _tell(options: ResizeNetworkOptions, resized: Mapping[str, Resized]) -> None:
    lost = sum(module.energy * module.error**2 for module in resized.values())
    whole = sum(module.energy for module in resized.values())
    ranks = sorted(module.factors.rank for module in resized.values())
    about = str(ranks[0]) if ranks[0] == ranks[-1] else f"{ranks[0]} to {ranks[-1]}"
    names = f"{options.model.name} -> {options.save_to} ({size_of(options.save_to)})"
    share = (lost / whole) ** 0.5 if whole else 0.0
    print(f"{names}: {len(ranks)} modules of rank {about}, all but {share:.2%} of the change's norm")
