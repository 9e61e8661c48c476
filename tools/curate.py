"""Look through a dataset: one page with every picture, its caption, and what is remarkable about both.

python tools/curate.py my_pictures --page curation.html
python tools/curate.py dataset.toml
python tools/curate.py meta.json --image_dir my_pictures --resolution 768

The page needs no other file. It exports what you decide (drop, another caption, repeats) as TOML, which
tools/apply_decisions.py carries out.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.curation import CurateOptions, DatasetSourceOptions
from library.options.parser import parse
from library.problems import run_command


@dataclass(frozen=True)
class Run:
    source: DatasetSourceOptions
    curation: CurateOptions


def main() -> None:
    run = parse(Run, __doc__)
    # No model is known here, so buckets are those of the first family's latents.
    from library.models import FAMILIES
    from library.models.text import Tokenizer
    from library.preparation.curation.command import curate

    curate(run.source, run.curation, next(iter(FAMILIES.values())).latent_space, Tokenizer().ends)


if __name__ == "__main__":
    run_command(main, unfinished="no page was written")
