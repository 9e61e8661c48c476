"""Merge two checkpoints with a share of its own for every block of the U-Net.

python tools/merge_block_weighted.py a.safetensors b.safetensors --base_alpha 0.4 --weights GRAD_V \
    --output merged.safetensors
python tools/merge_block_weighted.py a.ckpt b.ckpt --base_alpha 0.5 --output merged \
    --weights 0,0,0,0,0,0,0,0.2,0.4,0.6,0.8,1,1,1,0.8,0.6,0.4,0.2,0,0,0,0,0,0,0

A share of 0 is the first model, 1 the second. Presets: docs/model_tools.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.console import progress_bar, say
from library.models.detection import detect_family
from library.models.families import FAMILIES
from library.models.ldm.keys import block_spans, network_block
from library.models.merging import find_device, merge, plan_merge
from library.models.single_files import check_output
from library.options.block_presets import COUNT, XL_COUNT, for_sdxl
from library.options.model_tools import BlockMergeOptions
from library.options.parser import parse
from library.problems import Problems, UserError, run_command
from tools.merge_models import save, tell_incomplete


@dataclass(frozen=True)
class Run:
    merging: BlockMergeOptions


def main() -> None:
    options = parse(Run, __doc__).merging
    problems = Problems()
    models = (options.model_0, options.model_1)
    problems.attempt(check_output, options.target, map(Path, models))
    plan = problems.attempt(plan_merge, models)
    share = None
    if plan is not None:
        share = problems.attempt(shares, plan.merged, detect_family(plan.sources[0]), options)
    problems.raise_if_any()
    assert plan is not None
    assert share is not None
    from library.models.weights import dtype_of

    tell_incomplete(plan, each=options.verbose, option="--verbose")
    for name in plan.merged if options.verbose else ():
        say(f"{share(name):.4g}  {name}")
    tensors = merge(
        plan,
        lambda name: (1 - share(name), share(name)),
        device=find_device(options.device),
        dtype=dtype_of(options.precision),
        saving_dtype=dtype_of(options.saving_precision),
        progress=lambda names: progress_bar(names, desc="merging", unit="tensor"),
    )
    save(plan, tensors, options.target)


def shares(names: Sequence[str], family: str, options: BlockMergeOptions) -> Callable[[str], float]:
    """A tensor's name -> the second model's share in it.

    names: of all tensors that are merged.
    family: the models', by its name in FAMILIES.
    Raises UserError when the weights are not those of a model of this family.
    """
    if options.weights is None:
        return lambda name: options.base_alpha
    given, weights = options.weights
    base = options.base_alpha if given is None else given
    prefix = FAMILIES[family].signs.denoiser
    own_names = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    spans = block_spans(own_names, counts_all=False)
    count = len(spans.down) + 1 + len(spans.up)
    if len(weights) == COUNT and count == XL_COUNT:
        weights = for_sdxl(weights)
    if len(weights) != count:
        cause = (
            f"has {len(weights)} numbers, the U-Net of an {FAMILIES[family].title} model has {count} blocks"
        )
        raise UserError.of("--weights", cause, "give a number for each")

    def share(name: str) -> float:
        own = name.removeprefix(prefix)
        if own == name or own.startswith("label_emb."):
            return base
        number = network_block(own, spans)
        if number is None:  # the time embedding and the output layer
            return weights[-1 if own.startswith("out.") else 0]
        return weights[number]

    return share


if __name__ == "__main__":
    run_command(main)
