"""Train a slider for an SDXL model: train_leco.py, after a check that it is one.

accelerate launch sdxl_train_leco.py --pretrained_model_name_or_path sdxl.safetensors
    --prompts_file age.toml --network_dim 4 --network_alpha 1 --learning_rate 1e-4 --mixed_precision bf16
    --gradient_checkpointing --max_train_steps 500 --output_dir outputs --output_name age

For age.toml see train_leco.py; give it resolutions = [1024] here.
"""

from __future__ import annotations

from dataclasses import dataclass

import train_leco
from library.problems import run_command


@dataclass(frozen=True)
class Run(train_leco.Run):
    """The same options."""


def main() -> None:
    train_leco.train_slider(Run, __doc__, family="sdxl")


if __name__ == "__main__":
    run_command(main, unfinished="nothing to save")
