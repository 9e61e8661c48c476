"""Measure what the program itself costs. Prints one JSON line a figure; `make bench` runs it.

  python benchmarks/run.py            everything
  python benchmarks/run.py loader     one of the files beside this one

Each figure is a ratio against something measured in the same run, taken in turns, at least five pairs, the
median quoted. Absolute times are there for reading only: they mean little from one machine to another.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

BENCHMARKS = ("startup", "training", "scan", "caching", "loader")


def main() -> None:
    from library.problems import quiet_libraries

    quiet_libraries()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for name in sys.argv[1:] or BENCHMARKS:
        with tempfile.TemporaryDirectory() as folder:
            importlib.import_module(f"benchmarks.{name}").main(Path(folder))


if __name__ == "__main__":
    main()
