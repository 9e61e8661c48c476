"""Carry out decisions made on the page of tools/curate.py: on a copy of the dataset, or as a dataset file.

python tools/apply_decisions.py my_pictures --decisions decisions.toml --dry_run
python tools/apply_decisions.py my_pictures --decisions decisions.toml --output_dir my_pictures_2
python tools/apply_decisions.py my_pictures --decisions decisions.toml --as_subsets curated.toml

The dataset itself is never changed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.curation import DatasetSourceOptions, DecisionOptions
from library.options.parser import parse
from library.problems import run_command


@dataclass(frozen=True)
class Run:
    source: DatasetSourceOptions
    decisions: DecisionOptions


def main() -> None:
    run = parse(Run, __doc__)
    # No model is known here, so the dataset is checked against the first family's latents.
    from library.models import FAMILIES
    from library.preparation.curation.carrying_out import apply_decisions

    apply_decisions(run.source, run.decisions, next(iter(FAMILIES.values())).latent_space)


if __name__ == "__main__":
    run_command(main, unfinished="nothing was written")
