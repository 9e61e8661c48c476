"""Write a small model in the layout of SD 1.x, with random weights: for demos, tests and trying out commands.

python tools/make_tiny_model.py tiny.safetensors
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.models import check_target
from library.options.parser import parse
from library.options.tools import TinyModelOptions
from library.problems import run_command

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from library.models.sd.model import StableDiffusion

GROUPS, HEADS = 8, 2


@dataclass(frozen=True)
class Run:
    tiny: TinyModelOptions


def main() -> None:
    options = parse(Run, __doc__).tiny
    check_target(options.path, options.format)
    model = tiny_sd1(seed=options.seed)
    model.prediction_type = "v" if options.v_parameterization else "epsilon"
    model.save(options.path, options.format)
    size = sum(p.numel() for p in model.parameters())
    print(f"wrote {options.path}: {size / 1e6:.1f} million random weights in the layout of SD 1.x")


def tiny_sd1(seed: int = 0) -> StableDiffusion:
    """A small SD 1.x with the real vocabulary, on the CPU, in eval mode; the seed decides its weights."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from library.models.sd.model import StableDiffusion
    from library.models.text import BOS, EOS
    from library.randomness import keyed_generator

    with torch.random.fork_rng(devices=[]):  # the modules draw values of their own, which are replaced below
        unet = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(32, 64, 64, 64),
            layers_per_block=1,
            cross_attention_dim=32,
            attention_head_dim=HEADS,
            norm_num_groups=GROUPS,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=HEADS,
                projection_dim=32,
                bos_token_id=BOS,
                eos_token_id=EOS,
                pad_token_id=EOS,
            )
        )
        vae = AutoencoderKL(
            block_out_channels=(16, 32, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=GROUPS,
            sample_size=512,
        )
    model = StableDiffusion(unet, [text_encoder], vae).requires_grad_(False).eval()
    for part in ("unet", "text_encoder", "vae"):
        for name, weight in model.part_weights(part).items():
            _initialize(weight, name, keyed_generator(seed, "tiny model", name))
    return model


def _initialize(weight: Tensor, name: str, generator: Generator) -> None:
    """Norms and biases as everywhere; other weights keep the size of what goes through them."""
    if weight.ndim == 1:
        weight.fill_(0.0 if name.endswith("bias") else 1.0)
    elif "embedding" in name and "time_embed" not in name:
        weight.normal_(0.0, 0.02, generator=generator)
    else:
        weight.normal_(0.0, weight[0].numel() ** -0.5, generator=generator)


if __name__ == "__main__":
    run_command(main)
