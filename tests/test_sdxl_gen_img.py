"""Drawing with every kind of model, and what SDXL is told besides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run_here
from kinds import write_lora
from PIL import Image

import sdxl_minimal_inference
from library.generation.generate import generate
from library.generation.request import PromptRequest
from library.models import load_model
from library.problems import UserError

Saved = Callable[[str, str], Path]


def gap(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


@pytest.mark.parametrize("script", ["gen_img.py", "sdxl_gen_img.py"])
def test_sdxl_draws_1024_pixels_unless_asked_and_is_told_sizes(
    script: str, saved_kind: Saved, tmp_path: Path
) -> None:
    small = "one --d 5 --w 64 --h 64"
    lines = ["one --d 5", small, f"{small} --ow 99 --oh 77 --nw 55 --ct 3 --cl 4"]
    (tmp_path / "p.txt").write_text("\n".join(lines))
    words = ("--ckpt", saved_kind("sdxl", "safetensors"), "--from_file", tmp_path / "p.txt", "--steps", 1)
    run_here(script, *words, "--outdir", tmp_path / "out")
    pictures = [Image.open(path) for path in sorted((tmp_path / "out").glob("*.png"))]
    assert [picture.size for picture in pictures] == [(1024, 1024), (64, 64), (64, 64)]
    assert gap(pictures[1], pictures[2]) > 0
    sides = ("original-height", "original-width", "original-height-negative", "original-width-negative")
    told = [[picture.text[name] for name in (*sides, "crop-top", "crop-left")] for picture in pictures]
    assert told[0] == ["1024"] * 4 + ["0", "0"]
    assert told[2] == ["77", "99", "77", "55", "3", "4"]


def test_sizes_for_all_prompts_count_where_a_prompt_says_nothing(saved_kind: Saved, tmp_path: Path) -> None:
    small = ("--W", 64, "--H", 64, "--steps", 1, "--outdir", tmp_path)
    sizes = ("--crop_left", 9, "--original_width", 50)
    model = ("--ckpt", saved_kind("sdxl", "safetensors"))
    run_here("sdxl_gen_img.py", *model, *small, *sizes, "--prompt", "one --ow 40")
    (path,) = tmp_path.iterdir()
    text = Image.open(path).text
    assert [text[name] for name in ("original-width", "original-height", "crop-left")] == ["40", "64", "9"]


def test_sizes_told_to_a_model_that_takes_none_are_a_warning(
    tiny_model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ("--ckpt", tiny_model_file, "--W", 64, "--H", 64, "--steps", 1, "--outdir", tmp_path)
    run_here("gen_img_diffusers.py", *words, "--prompt", "one --ow 40")
    assert "original size and crop of 'one' have no effect" in capsys.readouterr().err
    (path,) = tmp_path.iterdir()
    assert "original-width" not in Image.open(path).text


def test_a_model_of_another_family_is_refused(tiny_model_file: Path, tmp_path: Path) -> None:
    words = ("--ckpt", tiny_model_file, "--prompt", "one", "--outdir", tmp_path)
    with pytest.raises(UserError, match="is an SD 1.x model, this command is for SDXL"):
        run_here("sdxl_gen_img.py", *words)


def test_the_small_command_draws_what_the_large_one_draws(
    monkeypatch: pytest.MonkeyPatch, saved_kind: Saved, tmp_path: Path
) -> None:
    model = saved_kind("sdxl", "safetensors")
    lora = write_lora(tmp_path / "lora.safetensors", model, 0.1)
    monkeypatch.setattr(sdxl_minimal_inference, "STEPS", 1)
    words = ("--ckpt_path", model, "--lora_weights", f"{lora};0.5", "--output_dir", tmp_path / "small")
    run_here("sdxl_minimal_inference.py", *words, "--prompt", "one", "--negative_prompt", "two", "--seed", 3)
    network = ("--network_weights", lora, "--network_mul", 0.5, "--network_merge", "--sampler", "euler")
    words = ("--ckpt", model, *network, "--outdir", tmp_path / "large", "--steps", 1, "--seed", 3, "--sdxl")
    run_here("gen_img.py", *words, "--prompt", "one --n two")
    small, large = (Image.open(next((tmp_path / name).iterdir())) for name in ("small", "large"))
    assert small.tobytes() == large.tobytes()


def test_every_kind_of_model_draws_what_diffusers_draws(kind: str, any_model_folder: Path) -> None:
    import diffusers

    model = load_model(any_model_folder)
    request = PromptRequest("a cat", "a dog", width=64, height=64, steps=3, seed=7, sampler="euler")
    (ours,) = generate(model, [request], device=torch.device("cpu"))
    pipeline = getattr(diffusers, model.layout.pipeline).from_pretrained(any_model_folder)
    pipeline.set_progress_bar_config(disable=True)
    spacing = {"timestep_spacing": "linspace", "steps_offset": 1}
    pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipeline.scheduler.config, **spacing)
    size = {"width": 64, "height": 64, "num_inference_steps": 3, "guidance_scale": 7.5}
    generator = torch.Generator("cpu").manual_seed(7)
    (theirs,) = pipeline("a cat", negative_prompt="a dog", generator=generator, **size).images
    assert gap(ours, theirs) <= 1
