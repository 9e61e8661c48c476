"""merge_lora.py by a name that older commands have."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.problems import run_command
from networks.merge_lora import main

if __name__ == "__main__":
    run_command(main)
