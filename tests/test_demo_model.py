"""The demo's model as a file: small, whole, and read by diffusers as we read it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from kinds import write_lora
from learning import MODEL
from PIL import Image

from library.generation.generate import generate
from library.generation.request import PromptRequest
from library.models import load_model
from library.models.saving import Saving
from library.models.weights import read_header
from networks import lora

PROMPT, SEED, STEPS = "a red star on a blue background", 5, 10
SCHEDULER = Path(__file__).parent / "data" / "sd1_scheduler_config.json"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a Diffusers folder: the local config for diffusers."""
    path = tmp_path_factory.mktemp("model") / "demo"
    load_model(MODEL).save(path, Saving("diffusers_safetensors"))
    return path


@pytest.fixture(scope="module")
def lora_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lora(tmp_path_factory.mktemp("lora") / "lora.safetensors", MODEL, 0.07)


def ours(network: Path | None) -> Image.Image:
    model = load_model(MODEL)
    if network is not None:
        lora.from_file(model, network).attach()
    request = PromptRequest(PROMPT, width=64, height=64, steps=STEPS, scale=5.0, seed=SEED)
    return generate(model, [request], device=torch.device("cpu"))[0]


def theirs(folder: Path, network: Path | None) -> Image.Image:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_single_file(
        MODEL, config=str(folder), local_files_only=True, safety_checker=None
    )
    pipeline.scheduler = DDIMScheduler.from_config(json.loads(SCHEDULER.read_text()))
    pipeline.set_progress_bar_config(disable=True)
    if network is not None:
        pipeline.load_lora_weights(str(network))
    generator = torch.Generator("cpu").manual_seed(SEED)
    size = {"width": 64, "height": 64, "num_inference_steps": STEPS, "guidance_scale": 5.0}
    return pipeline.to(torch.float32)(PROMPT, negative_prompt="", generator=generator, **size).images[0]


def gap(a: Image.Image, b: Image.Image) -> int:
    """The largest difference of two pictures' levels."""
    return int(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).max())


def test_diffusers_draws_the_same_picture_from_the_same_file(model_folder: Path) -> None:
    assert gap(ours(None), theirs(model_folder, None)) <= 1


def test_diffusers_draws_the_same_picture_with_a_lora(model_folder: Path, lora_file: Path) -> None:
    pytest.importorskip("peft")  # what diffusers loads a LoRA with
    with_lora = ours(lora_file)
    assert gap(with_lora, ours(None)) > 10
    assert gap(with_lora, theirs(model_folder, lora_file)) <= 1


def test_the_file_is_small_and_tells_what_weights_cannot() -> None:
    assert MODEL.stat().st_size <= 24_000_000
    told = json.loads(read_header(MODEL).metadata["atelier.config"])
    assert (told["unet"]["norm_num_groups"], told["vae"]["norm_num_groups"]) == (16, 8)
    assert told["prediction_type"] == "epsilon"
