"""Train a ControlNet for an SDXL model: train_control_net.py, with a rate for what is new in it.

accelerate launch sdxl_train_control_net.py --pretrained_model_name_or_path sdxl.safetensors
    --train_data_dir images --conditioning_data_dir hints --resolution 1024 --enable_bucket
    --caption_extension .txt --cache_latents --learning_rate 1e-5 --control_net_lr 1e-4
    --optimizer_type AdamW8bit --mixed_precision bf16 --gradient_checkpointing --max_train_steps 20000
    --output_dir outputs --output_name my_control
"""

from __future__ import annotations

from dataclasses import dataclass

import train_control_net
from library.options.control import ControlRateOptions
from library.problems import run_command


@dataclass(frozen=True)
class Run(train_control_net.Run):
    rates: ControlRateOptions

    @property
    def new_rate(self) -> float:
        return self.rates.control_net_lr


def main() -> None:
    train_control_net.train_control(Run, __doc__, family="sdxl")


if __name__ == "__main__":
    run_command(main, unfinished="nothing to save")
