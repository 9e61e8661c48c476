"""Learn a word with vectors of its own for each of the U-Net's text layers (XTI, extended textual inversion;
SD 1.x and 2.x).

accelerate launch train_textual_inversion_XTI.py --pretrained_model_name_or_path model.safetensors
    --train_data_dir images --resolution 512 --enable_bucket --token_string "<my-cat>" --init_word cat
    --use_object_template --cache_latents --learning_rate 5e-3 --mixed_precision bf16
    --max_train_steps 500 --save_model_as safetensors --output_dir outputs --output_name my-cat
"""

from __future__ import annotations

from dataclasses import dataclass

import train_textual_inversion
from library.problems import run_command


@dataclass(frozen=True)
class Run(train_textual_inversion.Run):
    """The same options."""


def main() -> None:
    train_textual_inversion.train_words(Run, __doc__, by_layer=True)


if __name__ == "__main__":
    run_command(main, unfinished="nothing to save")
