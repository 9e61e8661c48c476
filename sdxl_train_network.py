"""Train a network (LoRA) beside an SDXL model: train_network.py, after a check that it is one.

accelerate launch sdxl_train_network.py --pretrained_model_name_or_path sdxl.safetensors
    --train_data_dir images --resolution 1024 --enable_bucket --caption_extension .txt --cache_latents
    --network_module networks.lora --network_dim 16 --network_alpha 8 --network_train_unet_only
    --learning_rate 1e-4 --optimizer_type AdamW8bit --mixed_precision bf16 --gradient_checkpointing
    --max_train_epochs 10 --output_dir outputs --output_name my_lora
"""

from __future__ import annotations

from dataclasses import dataclass

import train_network
from library.problems import run_command


@dataclass(frozen=True)
class Run(train_network.Run):
    """The same options."""


def main() -> None:
    train_network.train_beside(Run, __doc__, family="sdxl")


if __name__ == "__main__":
    run_command(main, unfinished="nothing to save")
