"""Each sampler draws what diffusers' pipelines draw: plain, and with a LoRA, an embedding, a ControlNet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from controls import trained_control
from kinds import write_lora
from long_cases import long
from PIL import Image

from library.generation.generate import generate
from library.generation.request import PromptRequest
from library.generation.samplers import SAMPLERS
from library.models import load_model
from library.models.embeddings import add_embeddings
from library.models.ldm.model import LatentDiffusion
from library.models.weights import load_tensors, save_tensors
from library.network.loading import open_network

CPU = torch.device("cpu")
REQUEST = PromptRequest("a mycat on a mat", "blurry", width=64, height=64, steps=4, scale=5.0, seed=3)
# dpm++_2m draws at k-diffusion's times, which diffusers has no setting for; k_ names are the same samplers.
NAMES = [name for name in SAMPLERS if name != "dpm++_2m" and not name.startswith("k_")]
ADDED = ("nothing", "lora", "embedding", "control")
# In every run: one of each order and with noise of its own; the rest in the long part.
QUICK = {("euler_a", "lora"), ("unipc", "embedding"), ("heun", "control"), ("lms", "nothing")}
CASES = [(name, added) if (name, added) in QUICK else long(name, added) for name in NAMES for added in ADDED]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Ours and diffusers' with the same thing added.

    ours: a request -> our picture.
    pipeline: theirs.
    more: what it is given besides.
    """

    ours: Callable[[PromptRequest], Image.Image]
    pipeline: Any
    more: dict[str, Any]


@pytest.fixture(scope="module")
def pair(tiny_model_file: Path, tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """added -> the pair, made once."""
    folder, made = tmp_path_factory.mktemp("added"), dict[str, Pair]()

    def made_once(added: str) -> Pair:
        if added not in made:
            made[added] = _pair(added, tiny_model_file, tiny_model_folder, folder)
        return made[added]

    return made_once


def _pair(added: str, file: Path, model_folder: Path, folder: Path) -> Pair:
    model = load_model(file)
    assert isinstance(model, LatentDiffusion)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(model_folder, safety_checker=None)
    hints, control, more = (), None, dict[str, Any]()
    if added == "lora":
        path = write_lora(folder / "lora.safetensors", file, 0.1)
        open_network(model, path).attach()
        _add_lora(pipeline, load_tensors(path))
    elif added == "embedding":
        path = folder / "mycat.safetensors"
        width = pipeline.text_encoder.config.hidden_size
        vectors = torch.randn(3, width, generator=torch.Generator().manual_seed(5)) * 0.5
        save_tensors(path, {"emb_params": vectors})
        add_embeddings(model, [path])
        pipeline.load_textual_inversion({"mycat": vectors}, token="mycat")
    elif added == "control":
        picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        hints = (folder / "hint.png",)
        Image.fromarray(picture).save(hints[0])
        control = trained_control(model)
        pipeline = diffusers.StableDiffusionControlNetPipeline(
            **pipeline.components, controlnet=control.net, requires_safety_checker=False
        )
        more["image"] = Image.fromarray(picture)
    pipeline.set_progress_bar_config(disable=True)
    model.eval()

    def ours(request: PromptRequest) -> Image.Image:
        (found,) = generate(model, [request.with_hints(hints)], device=CPU, control=control)
        assert found is not None
        return found

    return Pair(ours, pipeline, more)


def _add_lora(pipeline: Any, tensors: dict[str, torch.Tensor]) -> None:
    """W + up down alpha / rank for every layer in the file (arXiv:2106.09685, eq. 3)."""
    text = pipeline.text_encoder
    # Files have transformers' older names, in which a text encoder is in a module of its own.
    parts = {"lora_unet": pipeline.unet, "lora_te_text_model": getattr(text, "text_model", text)}
    layers = {
        f"{prefix}_{name.replace('.', '_')}": layer
        for prefix, part in parts.items()
        for name, layer in part.named_modules()
    }
    names = [key.removesuffix(".alpha") for key in tensors if key.endswith(".alpha")]
    assert {name.startswith("lora_te") for name in names} == {True, False}
    for name in names:
        down, up = (tensors[f"{name}.lora_{end}.weight"].float() for end in ("down", "up"))
        scale = float(tensors[f"{name}.alpha"]) / len(down)
        weight = layers[name].weight
        weight.data += scale * (up.flatten(1) @ down.flatten(1)).view_as(weight)


@torch.no_grad()
@pytest.mark.parametrize(("sampler", "added"), CASES)
def test_a_picture_is_that_of_diffusers_pipeline(sampler: str, added: str, pair: Any) -> None:
    kind, both = SAMPLERS[sampler], pair(added)
    scheduler = diffusers.LMSDiscreteScheduler if sampler == "lms" else kind.find_class()
    both.pipeline.scheduler = scheduler(**kind.settings)
    request = dataclasses.replace(REQUEST, sampler=sampler)
    ours = np.asarray(both.ours(request), np.int16)
    theirs = both.pipeline(
        request.prompt,
        negative_prompt=request.negative,
        width=request.width,
        height=request.height,
        num_inference_steps=request.steps,
        guidance_scale=request.scale,
        generator=torch.Generator().manual_seed(request.seed),
        **both.more,
    ).images[0]
    assert np.abs(ours - np.asarray(theirs, np.int16)).max() <= 1
    if added != "nothing":
        assert np.abs(ours - np.asarray(pair("nothing").ours(request), np.int16)).max() > 1
