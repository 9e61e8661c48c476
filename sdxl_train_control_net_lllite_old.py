"""sdxl_train_control_net_lllite.py by a name that older commands have."""

from __future__ import annotations

from library.problems import run_command
from sdxl_train_control_net_lllite import main

if __name__ == "__main__":
    run_command(main, unfinished="nothing to save")
