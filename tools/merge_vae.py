"""Put another VAE into a checkpoint.

python tools/merge_vae.py model.safetensors vae.safetensors model_with_vae.safetensors
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.console import activity
from library.models import check_source, check_vae, load_model
from library.models.saving import Saving
from library.models.single_files import check_output, kept_metadata, size_of
from library.models.sources import Source
from library.models.weights import read_header
from library.options.model_tools import MergeVaeOptions
from library.options.parser import parse
from library.problems import Problems, run_command


@dataclass(frozen=True)
class Run:
    merging: MergeVaeOptions


def main() -> None:
    options = parse(Run, __doc__).merging
    source = check(options).path

    from library.models.weights import dtype_of

    model = load_model(options.model_to_load, vae=options.vae, dtype="stored")
    metadata = {} if source.is_dir() else read_header(source).metadata
    saving = Saving(
        options.format,
        dtype=None if options.saving_precision == "no" else dtype_of(options.saving_precision),
        metadata=kept_metadata(metadata, options.model_to_save),
    )
    with activity(f"saving {options.model_to_save}"):
        model.save(options.model_to_save, saving)
    before = "" if source.is_dir() else f" ({size_of(source)})"
    print(f"{options.model_to_load}{before} with the VAE of {options.vae}")
    print(f"-> {options.model_to_save} ({size_of(options.model_to_save)})")


def check(options: MergeVaeOptions) -> Source:
    """The model's files. Raises UserError with everything that is wrong with model, VAE and target."""
    problems = Problems()
    inputs = [Path(name) for name in (options.model_to_load, options.vae)]
    problems.attempt(check_output, options.model_to_save, inputs)
    source = problems.attempt(check_source, options.model_to_load)
    problems.attempt(check_vae, options.vae)
    problems.raise_if_any()
    assert source is not None
    return source


if __name__ == "__main__":
    run_command(main)
