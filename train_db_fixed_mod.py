"""train_db.py by a name that older commands have."""

from __future__ import annotations

from library.problems import run_command
from train_db import main

if __name__ == "__main__":
    run_command(main, unfinished="nothing to save")
