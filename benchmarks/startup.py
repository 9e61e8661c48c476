"""How fast `--help` answers.

python benchmarks/startup.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import in_turns, say, seconds  # noqa: E402


def main(folder: Path) -> None:
    """`train_network.py --help` against an empty Python program."""

    def start(*words: str) -> float:
        return seconds(
            lambda: subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, check=True)
        )

    start("train_network.py", "--help")  # fills the file cache
    ratio, ours, empty = in_turns(lambda: start("train_network.py", "--help"), lambda: start("-c", "pass"))
    say("help", seconds=ours, empty_program_seconds=empty, ratio=ratio, target_seconds=0.3)


if __name__ == "__main__":
    main(ROOT)
