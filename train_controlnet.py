"""train_control_net.py by a name that older commands have."""

from __future__ import annotations

from library.problems import run_command
from train_control_net import main

if __name__ == "__main__":
    run_command(main, unfinished="nothing to save")
