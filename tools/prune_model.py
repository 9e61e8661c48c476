"""Make a checkpoint smaller: without optimizer, averaged weights and other things that drawing does not need.

python tools/prune_model.py full.ckpt small.safetensors --saving_precision fp16
python tools/prune_model.py full.ckpt averaged.safetensors --ema
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.console import activity, progress_bar
from library.models.pruning import EMA, plan_pruning, prune
from library.models.single_files import (
    check_output,
    find_file,
    kept_metadata,
    size_of,
    take_config_along,
)
from library.models.weights import read_header
from library.options.model_tools import PruneOptions
from library.options.parser import parse
from library.problems import Problems, run_command


@dataclass(frozen=True)
class Run:
    pruning: PruneOptions


def main() -> None:
    options = parse(Run, __doc__).pruning
    plan = check(options)

    from library.models.weights import dtype_of, save_tensors

    source = find_file(options.model_to_load)
    header = read_header(source.path)
    dtype = None if options.saving_precision == "no" else dtype_of(options.saving_precision)
    tensors = prune(
        source,
        plan,
        dtype=dtype,
        progress=lambda names: progress_bar(names, desc="pruning", unit="tensor"),
    )
    told = kept_metadata(header.metadata, options.model_to_save)
    with activity(f"saving {options.model_to_save}"):
        save_tensors(options.model_to_save, tensors, told, beside=told)
    take_config_along(source.path, options.model_to_save)
    averages = sum(name.startswith(EMA) for name in header.shapes)
    if averages and not options.ema:
        print(f"left out {averages} averaged weights (model_ema.); --ema takes them as the U-Net's")
    for path, count in ((source.path, len(header.shapes)), (options.model_to_save, len(tensors))):
        print(f"{path}: {count} tensors, {size_of(path)}")


def check(options: PruneOptions) -> dict[str, str]:
    """Name in the result -> name in the file. Raises UserError with everything that is wrong with model and
    target.
    """
    problems = Problems()
    problems.attempt(check_output, options.model_to_save, [Path(options.model_to_load)])
    plan = problems.attempt(plan_pruning, options.model_to_load, options.parts, ema=options.ema)
    problems.raise_if_any()
    assert plan is not None
    return plan


if __name__ == "__main__":
    run_command(main)
