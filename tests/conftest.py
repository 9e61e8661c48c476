"""Fixtures that many tests share: a tiny model of each family, made on the spot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from library.models.base import Model
from tools.make_tiny_model import tiny_sd1

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "demo"))  # whose modules tests import


@pytest.fixture
def tiny_model() -> Model:
    """A fresh tiny SD 1.x."""
    return tiny_sd1()


@pytest.fixture(scope="session")
def tiny_model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny SD 1.x as a single file. Not to be changed."""
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    tiny_sd1().save(path, "safetensors")
    return path


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a Diffusers folder. Not to be changed."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny_sd1().save(path, "diffusers_safetensors")
    return path


@pytest.fixture(scope="session")
def full_size_sd1() -> Model:
    """A model of SD 1.5's full size without memory: its tensors are on the meta device."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from library.models.sd.model import StableDiffusion

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
        text = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
            )
        )
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
        )
    return StableDiffusion(unet, [text], vae)
