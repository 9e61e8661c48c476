"""Write a small model in the layout of SD 1.x, with random weights: for demos, tests and trying out commands.

python tools/make_tiny_model.py tiny.safetensors
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from library.options.parser import parse
from library.options.tools import TinyModelOptions
from library.problems import run_command

if TYPE_CHECKING:
    from library.models.sd.model import StableDiffusion

GROUPS, HEADS = 8, 2


@dataclass(frozen=True)
class Run:
    tiny: TinyModelOptions


def main() -> None:
    options = parse(Run, __doc__).tiny
    assert options.path is not None
    model = tiny_sd1(seed=options.seed)
    model.prediction_type = "v" if options.v_parameterization else "epsilon"
    form = {".safetensors": "safetensors", ".ckpt": "ckpt"}.get(options.path.suffix, "diffusers_safetensors")
    model.save(options.path, form)
    size = sum(p.numel() for p in model.parameters())
    print(f"wrote {options.path}: {size / 1e6:.1f} million random weights in the layout of SD 1.x")


def tiny_sd1(seed: int = 0) -> StableDiffusion:
    """A small SD 1.x with the real vocabulary, on the CPU, in eval mode; the same for the same seed."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from library.models.sd.configs import LATENT_FACTOR
    from library.models.sd.model import StableDiffusion
    from library.models.text import BOS, EOS

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(32, 64, 64, 64),
            layers_per_block=1,
            cross_attention_dim=32,
            attention_head_dim=HEADS,
            norm_num_groups=GROUPS,
        )
        text = CLIPTextConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=HEADS,
            projection_dim=32,
            bos_token_id=BOS,
            eos_token_id=EOS,
        )
        text_encoder = CLIPTextModel(text)
        vae = AutoencoderKL(
            block_out_channels=(16, 32, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=GROUPS,
            scaling_factor=LATENT_FACTOR,
            sample_size=512,
        )
    return StableDiffusion(unet, [text_encoder], vae).requires_grad_(False).eval()


if __name__ == "__main__":
    run_command(main)
