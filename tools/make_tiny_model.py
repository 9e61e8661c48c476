"""Write a small model in the layout of a family, with random weights: for demos, tests and trials.

python tools/make_tiny_model.py tiny.safetensors
python tools/make_tiny_model.py tiny_xl.safetensors --family sdxl
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.models import FAMILIES, check_target
from library.models.saving import Saving
from library.options.parser import parse
from library.options.tools import TinyModelOptions
from library.problems import UserError, run_command

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from library.models.ldm.model import LatentDiffusion
    from library.models.prediction import PredictionType

GROUPS, HEADS = 8, 2
_FIRST_WIDTH, _SECOND_WIDTH = 32, 48  # of text encoders: diffusers tells them apart by it
_PROJECTION = 24  # width of the pooled text where there is one
_SIZE_WIDTH = 16  # of the embedding of one of a picture's six sizes

# What is different in each family; the rest is shared.
_UNETS: dict[str, dict[str, Any]] = {
    "sd1": {
        "block_out_channels": (32, 64, 64, 64),
        "layers_per_block": 1,
        "cross_attention_dim": _FIRST_WIDTH,
    },
    "sd2": {
        "block_out_channels": (32, 64, 64, 64),
        "layers_per_block": 1,
        "cross_attention_dim": _FIRST_WIDTH,
        "use_linear_projection": True,
        "sample_size": 96,
    },
    "sdxl": {
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 2,
        "transformer_layers_per_block": (1, 1, 2),
        "cross_attention_dim": _FIRST_WIDTH + _SECOND_WIDTH,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": _SIZE_WIDTH,
        "projection_class_embeddings_input_dim": _PROJECTION + 6 * _SIZE_WIDTH,
        "sample_size": 128,
    },
}
# Two levels instead of all: a third of the operators, for tests that train.
_SHALLOW: dict[str, dict[str, Any]] = {
    "sd1": {
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    },
    "sdxl": {
        "block_out_channels": (32, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "transformer_layers_per_block": (1, 2),
    },
}
_SHALLOW["sd2"] = _SHALLOW["sd1"]
_VAES: dict[str, dict[str, Any]] = {"sdxl": {"scaling_factor": 0.13025, "sample_size": 1024}}


@dataclass(frozen=True)
class Run:
    tiny: TinyModelOptions


def main() -> None:
    options = parse(Run, __doc__).tiny
    if options.family not in FAMILIES:
        raise UserError.of(f"--family {options.family}", "is not known", f"there are {', '.join(FAMILIES)}")
    assert options.path is not None  # its section refuses a command line without one
    check_target(options.path, options.format)
    predicts: PredictionType = "v" if options.v_parameterization else "epsilon"
    model = tiny_model(options.family, seed=options.seed, prediction_type=predicts)
    model.save(options.path, Saving(options.format))
    size, title = sum(p.numel() for p in model.parameters()), FAMILIES[options.family].title
    print(f"wrote {options.path}: {size / 1e6:.1f} million random weights in the layout of {title}")


def tiny_model(
    family: str = "sd1",
    *,
    seed: int = 0,
    prediction_type: PredictionType = "epsilon",
    shallow: bool = False,
) -> LatentDiffusion:
    """A small model with the real byte pairs, on the CPU, in eval mode. Its weights depend on the seed.

    shallow: a U-Net of two levels, which no block weights or names of deeper blocks fit.
    """
    import torch

    kind, layout = importlib.import_module(FAMILIES[family].module).MODELS[family]
    with torch.random.fork_rng(devices=[]):  # the modules draw values of their own, which are replaced below
        texts = [
            _text_encoder(part.projects, part.standard["hidden_act"])
            for part in layout.parts.values()
            if part.is_text_encoder
        ]
        model = kind(
            _unet(family, shallow), texts, _vae(family), layout=layout, prediction_type=prediction_type
        )
    model.requires_grad_(False).eval()
    for part in layout.parts:
        weights = model.part_weights(part)
        for name, weight in weights.items():
            _initialize(weight, name, _generator(seed, name))
        model.load_part_weights(part, weights)
    return model


def _unet(family: str, shallow: bool) -> nn.Module:
    from diffusers import UNet2DConditionModel

    shared = {"sample_size": 64, "attention_head_dim": HEADS, "norm_num_groups": GROUPS}
    return UNet2DConditionModel(**shared | _UNETS[family] | (_SHALLOW[family] if shallow else {}))


def _text_encoder(projects: bool, activation: str) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from library.models.text import BOS, EOS

    width = _SECOND_WIDTH if projects else _FIRST_WIDTH
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        projection_dim=_PROJECTION if projects else width,
        hidden_act=activation,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=EOS,
    )
    return (CLIPTextModelWithProjection if projects else CLIPTextModel)(config)


def _vae(family: str) -> nn.Module:
    from diffusers import AutoencoderKL

    shared = {
        "block_out_channels": (16, 32, 32, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": GROUPS,
        "sample_size": 512,
    }
    return AutoencoderKL(**shared | _VAES.get(family, {}))


def _generator(seed: int, name: str) -> Generator:
    from library.randomness import keyed_generator

    return keyed_generator(seed, "tiny model", name)


def _initialize(weight: Tensor, name: str, generator: Generator) -> None:
    """Norms and biases as usual; other weights preserve the variance of their input."""
    if weight.ndim == 1:
        weight.fill_(0.0 if name.endswith("bias") else 1.0)
    elif "embedding" in name and "time_embed" not in name:
        weight.normal_(0.0, 0.02, generator=generator)
    else:
        weight.normal_(0.0, weight[0].numel() ** -0.5, generator=generator)


if __name__ == "__main__":
    run_command(main)
