"""Train a ControlNet-LLLite for an SDXL model: train_control_net_lllite.py, after a check that it is one.

accelerate launch sdxl_train_control_net_lllite.py --pretrained_model_name_or_path sdxl.safetensors
    --train_data_dir pictures --conditioning_data_dir outlines --caption_extension .txt --resolution 1024
    --enable_bucket --cache_latents --cache_text_encoder_outputs --cond_emb_dim 32 --network_dim 64
    --learning_rate 2e-4 --train_batch_size 8 --mixed_precision bf16 --gradient_checkpointing
    --max_train_epochs 10 --output_dir outputs --output_name outlines
"""

from __future__ import annotations

from dataclasses import dataclass

import train_control_net_lllite
from library.problems import run_command


@dataclass(frozen=True)
class Run(train_control_net_lllite.Run):
    """The same options."""


def main() -> None:
    train_control_net_lllite.train_lllite(Run, __doc__, family="sdxl")


if __name__ == "__main__":
    run_command(main, unfinished="nothing to save")
