"""Measure the overhead of the program itself. Prints a JSON line per figure; `make bench` runs it.

  python benchmarks/run.py            everything
  python benchmarks/run.py loader     one of the files in this folder

Each figure is a ratio to something measured in the same run, in turns: the median of at least five pairs.
Absolute times are for reading only: they mean little from one machine to another.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

BENCHMARKS = ("startup", "operators", "drawing", "training", "scan", "caching", "loader")


def main() -> None:
    from library.problems import quiet_libraries

    quiet_libraries()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for name in sys.argv[1:] or BENCHMARKS:
        with tempfile.TemporaryDirectory() as folder:
            importlib.import_module(f"benchmarks.{name}").main(Path(folder))


if __name__ == "__main__":
    main()
