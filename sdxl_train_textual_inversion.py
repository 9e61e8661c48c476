"""Learn a word for an SDXL model: train_textual_inversion.py, after a check that it is one.

accelerate launch sdxl_train_textual_inversion.py --pretrained_model_name_or_path sdxl.safetensors
    --train_data_dir images --resolution 1024 --enable_bucket --token_string "<my-cat>" --init_word cat
    --num_vectors_per_token 4 --use_object_template --cache_latents --learning_rate 5e-3
    --mixed_precision bf16 --gradient_checkpointing --max_train_steps 1500 --save_model_as safetensors
    --output_dir outputs --output_name my-cat
"""

from __future__ import annotations

from dataclasses import dataclass

import train_textual_inversion
from library.problems import run_command


@dataclass(frozen=True)
class Run(train_textual_inversion.Run):
    """The same options."""


def main() -> None:
    train_textual_inversion.train_words(Run, __doc__, family="sdxl")


if __name__ == "__main__":
    run_command(main, unfinished="nothing to save")
