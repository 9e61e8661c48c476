"""Merge checkpoints of one family into a weighted sum.

python tools/merge_models.py --models a.safetensors b.safetensors --ratios 0.7 0.3 --output merged.safetensors
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.console import activity, progress_bar
from library.models.merging import MergePlan, find_device, merge, plan_merge
from library.models.single_files import check_output, kept_metadata, size_of, take_config_along
from library.options.model_tools import MergeModelsOptions
from library.options.parser import parse
from library.problems import Problems, run_command

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Run:
    merging: MergeModelsOptions


def main() -> None:
    options = parse(Run, __doc__).merging
    plan = check(options)
    tell_incomplete(plan, each=options.show_skipped)

    from library.models.weights import dtype_of

    tensors = merge(
        plan,
        options.shares,
        device=find_device(options.device),
        dtype=dtype_of(options.precision),
        saving_dtype=dtype_of(options.saving_precision),
        progress=lambda names: progress_bar(names, desc="merging", unit="tensor"),
    )
    save(plan, tensors, options.output)


def check(options: MergeModelsOptions) -> MergePlan:
    """How the models merge. Raises UserError with everything that is wrong with the models and the target."""
    problems = Problems()
    problems.attempt(check_output, options.output, map(Path, options.models))
    plan = problems.attempt(plan_merge, options.models, unet_only=options.unet_only)
    problems.raise_if_any()
    assert plan is not None
    return plan


def save(plan: MergePlan, tensors: dict[str, Tensor], target: Path) -> None:
    """Write what was merged, with what still holds of the first file's metadata."""
    from library.models.weights import save_tensors

    paths = [source.path for source in plan.sources]
    told = kept_metadata(plan.header.metadata, target, paths)
    with activity(f"saving {target}"):
        save_tensors(target, tensors, told, beside=told)
    take_config_along(paths[0], target)
    print(f"{' + '.join(path.name for path in paths)} -> {target} ({size_of(target)})")


def tell_incomplete(plan: MergePlan, *, each: bool, option: str = "--show_skipped") -> None:
    """Print how many tensors not every model has. each: and their names, which `option` asks for."""
    not_in_all = "tensors not in all models (where one is lacking, the first model's counts)"
    for names, what in ((plan.incomplete, not_in_all), (plan.skipped, "tensors left out: not in the first")):
        if names:
            print(f"{what}: {len(names)}" + ("" if each else f"; {option} lists them"))
        for name in names if each else ():
            print(f"  {name}")


if __name__ == "__main__":
    run_command(main)
