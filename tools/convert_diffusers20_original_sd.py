"""Convert a Stable Diffusion model, SD 1.x, SD 2.x or SDXL, between a single file and a Diffusers folder.

python tools/convert_diffusers20_original_sd.py model.safetensors model_folder
python tools/convert_diffusers20_original_sd.py model_folder model.safetensors --fp16
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.console import activity
from library.models import FAMILIES, check_source, check_target, detect_family, load_model
from library.models.saving import Saving
from library.options.parser import parse
from library.options.tools import ConvertOptions
from library.problems import Problems, run_command


@dataclass(frozen=True)
class Run:
    convert: ConvertOptions


def main() -> None:
    options = parse(Run, __doc__).convert
    check(options)

    from library.models.weights import dtype_of

    model = load_model(
        options.model_to_load,
        dtype="stored",
        variant=options.variant,
        linear_projection=options.unet_use_linear_projection,
        keeps_others=options.keep_other_tensors,
    )
    saving = Saving(
        options.format,
        dtype=dtype_of(options.precision) if options.precision else None,
        metadata=options.metadata,
        epoch=options.epoch,
        step=options.global_step,
        max_shard_size=options.max_shard_size,
    )
    with activity(f"saving {options.model_to_save}"):
        model.save(options.model_to_save, saving)
    print(f"{options.model_to_load} -> {options.model_to_save}")


def check(options: ConvertOptions) -> None:
    """Raises UserError with everything that is wrong with the model and the target."""
    problems = Problems()
    problems.attempt(check_target, options.model_to_save, options.format)
    source = problems.attempt(
        check_source,
        options.model_to_load,
        v1=options.v1,
        v2=options.v2,
        variant=options.variant,
    )
    is_other = source is not None and FAMILIES[detect_family(source)].flag != "--v2"
    if options.unet_use_linear_projection and is_other:
        problems.add("--unet_use_linear_projection", "only SD 2.x has such projections", "leave it out")
    if source is not None and options.variant and source.kind != "diffusers":
        problems.add("--variant", "only a Diffusers folder has variants", "leave it out")
    problems.raise_if_any()


if __name__ == "__main__":
    run_command(main)
