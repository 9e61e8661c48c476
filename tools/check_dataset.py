"""Check a dataset without a model: everything that is wrong with it, and a page that shows it as trained.

python tools/check_dataset.py --dataset_config dataset.toml --report dataset.html
python tools/check_dataset.py --train_data_dir my_pictures --resolution 512 --enable_bucket
    --caption_extension .txt

Every picture is decoded, which finds damaged files, pictures that look alike, transparent parts and
animations. The exit code is 2 when there are problems, and the page lists them too.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.caching import CachingOptions
from library.options.data import DataOptions
from library.options.parser import parse
from library.options.tools import CheckDatasetOptions
from library.problems import Problems, run_command, warn

if TYPE_CHECKING:
    from library.data.report.inspection import Inspection
    from library.data.training_data import TrainingData


@dataclass(frozen=True)
class Run:
    data: DataOptions
    check: CheckDatasetOptions


def main() -> None:
    run = parse(Run, __doc__)
    if run.data.debug_dataset:
        warn("--debug_dataset has no effect: the page is written in any case")
    problems = Problems()
    # No model is known here, so sizes are checked against the first family's latents.
    from library.data.training_data import TrainingData
    from library.models import FAMILIES

    latent_space = next(iter(FAMILIES.values())).latent_space
    data = TrainingData.collect(run.data, CachingOptions(), problems, latent_space=latent_space)
    inspection = inspect(data)
    # With --on_bad_image skip a bad image is no problem: it is left out, and listed.
    (data.bad_images if data.skips_bad_images else problems.found).extend(inspection.problems)
    write(run, data, problems, inspection)
    problems.raise_if_any()


def inspect(data: TrainingData) -> Inspection:
    """Decode everything that the data uses."""
    from library.data.report.findings import every_record
    from library.data.report.inspection import inspect_pictures

    records = every_record(data)
    return inspect_pictures(
        [record.image for record in records], [record.hint for record in records if record.hint]
    )


def write(run: Run, data: TrainingData, problems: Problems, inspection: Inspection) -> None:
    from library.data.report.texts import Look
    from library.data.report.writing import say_in_short, write_page
    from library.models.text import Tokenizer

    look = Look(
        seed=run.check.sample_seed,
        token_ends=Tokenizer().ends,
        max_tokens=run.check.max_token_length,
        total_steps=run.check.max_train_steps,
        steps_per_epoch=data.batches_per_epoch(1),
    )
    warnings = write_page(
        run.check.report,
        data,
        look,
        title=run.data.name,
        problems=list(dict.fromkeys(problems.found)),
        inspection=inspection,
    )
    say_in_short(run.check.report, data, warnings)


if __name__ == "__main__":
    run_command(main)
