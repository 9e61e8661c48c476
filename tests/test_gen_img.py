"""gen_img_diffusers.py as its user calls it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kinds import write_lora
from PIL import Image

import gen_img_diffusers
from library.generation.command import check
from library.generation.prompt_options import generator_syntax
from library.generation.reading import read
from library.models import FAMILIES
from library.problems import UserError

ROOT = Path(__file__).parents[1]
SD1_CONFIG = ROOT / "tests" / "data" / "sd1_scheduler_config.json"


@pytest.fixture(scope="module")
def lora_file(tiny_model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lora(tmp_path_factory.mktemp("lora") / "lora.safetensors", tiny_model_file, 0.1)


def run(*words: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "gen_img_diffusers.py", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def draw(monkeypatch: pytest.MonkeyPatch, outdir: Path, *words: str | Path) -> list[Image.Image]:
    """The command in this process; its pictures in order."""
    common = ["--W", "64", "--H", "64", "--steps", "2", "--outdir", outdir]
    monkeypatch.setattr(sys, "argv", ["gen_img_diffusers.py", *map(str, [*common, *words])])
    gen_img_diffusers.main()
    return [Image.open(path) for path in sorted(outdir.glob("*.png"))]


def gap(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of a pixel's channel, in levels of 255."""
    return int(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max())


def mean_gap(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).mean())


def problems(*words: str | Path) -> list[str]:
    with pytest.raises(UserError) as caught:
        check(read(gen_img_diffusers.Run, None, [*map(str, words)]))
    return [str(problem) for problem in caught.value.problems]


def test_the_command_draws_saves_and_says_where(tiny_model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("# two\na cat --n ugly --s 1 --d 7 --w 72\na dog\n")
    result = run(
        *("--ckpt", tiny_model_file, "--from_file", tmp_path / "prompts.txt", "--outdir", tmp_path / "out"),
        *("--images_per_prompt", 2, "--batch_size", 3, "--W", 64, "--H", 64, "--steps", 2, "--seed", 1),
    )
    assert result.returncode == 0, result.stderr
    assert f"4 pictures in {tmp_path / 'out'}" in result.stdout
    assert "drawing: 100%" in result.stderr
    pictures = [Image.open(path) for path in sorted((tmp_path / "out").glob("*.png"))]
    assert [picture.size for picture in pictures] == [(72, 64), (72, 64), (64, 64), (64, 64)]
    assert pictures[0].text == {
        "prompt": "a cat",
        "seed": "7",
        "sampler": "ddim",
        "steps": "1",
        "scale": "7.5",
        "negative-prompt": "ugly",
        "raw-prompt": "a cat --n ugly --s 1 --d 7 --w 72",
        "parameters": "a cat\nNegative prompt: ugly\nSteps: 1, Sampler: DDIM, CFG scale: 7.5, Seed: 7, "
        f"Size: 72x64, Model hash: {hashlib.sha256(tiny_model_file.read_bytes()).hexdigest()[:10]}, "
        f"Model: {tiny_model_file.stem}, RNG: CPU",
    }
    assert [picture.text["prompt"] for picture in pictures] == ["a cat", "a cat", "a dog", "a dog"]
    assert len({picture.text["seed"] for picture in pictures}) == 4


def test_all_problems_are_shown_together_and_nothing_is_drawn(tmp_path: Path) -> None:
    missing = tmp_path / "missing.safetensors"
    result = run(
        *("--ckpt", missing, "--prompt", "a --q 3 --w 65", "--W", 100, "--fp16", "--bf16"),
        *("--network_module", "networks.lora", "--network_weights", tmp_path / "none.safetensors"),
        *("--outdir", tmp_path / "out", "--network_regional_mask_max_color_codes", 9, "--stepz", 3),
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "8 problems found:",
        "  --stepz: there is no such option; did you mean --steps?",
        "  --fp16: choose --fp16 or --bf16",
        "  --network_regional_mask_max_color_codes: must be from 1 to 7: the colours are red, green, yellow, "
        "blue, magenta, cyan, white",
        "  --W: must be a multiple of 8",
        f"  {missing}: there is no file or folder here; check the path",
        f"  {tmp_path / 'none.safetensors'}: there is no such file of network weights",
        "  --prompt, column 3: there is no prompt option --q; there are "
        + ", ".join(f"--{name}" for name in generator_syntax(8).options),
        "  --prompt, column 9: --w expects a size in pixels, a multiple of 8, got '65'",
    ]
    assert not (tmp_path / "out").exists()


def test_sizes_are_multiples_of_what_the_family_of_the_model_says(
    monkeypatch: pytest.MonkeyPatch, tiny_model_file: Path
) -> None:
    coarse = replace(FAMILIES["sd1"].latent_space, pixel_multiple=32)
    monkeypatch.setitem(FAMILIES, "sd1", replace(FAMILIES["sd1"], latent_space=coarse))
    words = ("--ckpt", tiny_model_file, "--prompt", "a --h 72", "--n_iter", "0", "--W", "72", "--seed", "-1")
    assert problems(*words) == [
        "--n_iter: must be 1 or more",
        "--W: must be a multiple of 32",
        "--seed: must be 0 or more",
        "--prompt, column 3: --h expects a size in pixels, a multiple of 32, got '72'",
    ]


def test_v2_on_another_model_is_one_line(tiny_model_file: Path) -> None:
    assert problems("--ckpt", tiny_model_file, "--prompt", "a", "--v2") == [
        f"--v2: {tiny_model_file} is an SD 1.x model; leave --v2 out"
    ]


def test_pictures_do_not_depend_on_the_batch_size(
    monkeypatch: pytest.MonkeyPatch, tiny_model_file: Path, tmp_path: Path
) -> None:
    words = ("--ckpt", tiny_model_file, "--prompt", "a cat", "--images_per_prompt", "3", "--seed", "5")
    one = draw(monkeypatch, tmp_path / "one", *words)
    three = draw(monkeypatch, tmp_path / "three", *words, "--batch_size", "3")
    assert [picture.text for picture in one] == [picture.text for picture in three]
    assert max(gap(a, b) for a, b in zip(one, three, strict=True)) <= 1


def test_networks_change_pictures_by_their_strength_attached_or_merged(
    monkeypatch: pytest.MonkeyPatch, tiny_model_file: Path, lora_file: Path, tmp_path: Path
) -> None:
    words = ("--ckpt", tiny_model_file, "--seed", "5")
    network = ("--network_module", "networks.lora", "--network_weights", lora_file)

    def picture(name: str, *more: str | Path, prompt: str = "a cat") -> Image.Image:
        return draw(monkeypatch, tmp_path / name, *words, "--prompt", prompt, *more)[0]

    plain, off = picture("plain"), picture("off", *network, "--network_mul", "0")
    half, full = picture("half", *network, "--network_mul", "0.5"), picture("full", *network)
    merged = picture("merged", *network, "--network_mul", "0.5", "--network_merge")
    assert gap(plain, off) <= 1
    assert gap(half, merged) <= 1
    assert gap(half, picture("chosen", *network, prompt="a cat --am 0.5")) <= 1
    assert gap(plain, half) > 8
    assert gap(half, full) > 8


def test_a_lora_gives_the_picture_that_diffusers_gives(
    monkeypatch: pytest.MonkeyPatch,
    tiny_model_file: Path,
    tiny_model_folder: Path,
    lora_file: Path,
    tmp_path: Path,
) -> None:
    pytest.importorskip("peft")  # what diffusers loads a LoRA with
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model_folder, safety_checker=None)
    pipeline.scheduler = DDIMScheduler.from_config(json.loads(SD1_CONFIG.read_text()))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(str(lora_file))
    theirs = pipeline(
        "a cat",
        negative_prompt="",
        width=64,
        height=64,
        num_inference_steps=2,
        guidance_scale=7.5,
        generator=torch.Generator("cpu").manual_seed(5),
    ).images[0]
    network = ("--network_module", "networks.lora", "--network_weights", lora_file)
    words = ("--ckpt", tiny_model_file, "--prompt", "a cat", "--seed", "5")
    [ours] = draw(monkeypatch, tmp_path, *words, *network)
    assert gap(ours, theirs) <= 1


def test_half_precision_keeps_the_vae_exact(
    monkeypatch: pytest.MonkeyPatch, tiny_model_file: Path, lora_file: Path, tmp_path: Path
) -> None:
    words = ("--ckpt", tiny_model_file, "--prompt", "a cat", "--seed", "5", "--sampler", "euler_a")
    words += ("--network_module", "networks.lora", "--network_weights", lora_file)
    exact, half, brain = (
        draw(monkeypatch, tmp_path / (name or "exact"), *words, *([name] if name else []))[0]
        for name in ("", "--fp16", "--bf16")
    )
    assert 0 < mean_gap(exact, half) < mean_gap(exact, brain) < 12


def test_pictures_begin_with_pictures_and_are_named_and_written_as_asked(
    monkeypatch: pytest.MonkeyPatch, tiny_model_file: Path, tmp_path: Path
) -> None:
    """The second run has no prompt: it draws those in the text of the first one's pictures."""
    (tmp_path / "p.txt").write_text("a cat --n ugly --d 3 --f one.png\na dog --d 4 --f sub/two.webp\n")
    model = ("--ckpt", tiny_model_file)
    draw(monkeypatch, tmp_path / "first", *model, "--from_file", tmp_path / "p.txt")
    first = [tmp_path / "first" / "one.png", tmp_path / "first" / "sub" / "two.webp"]
    assert [Image.open(path).format for path in first] == ["PNG", "WEBP"]
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in first:
        path.rename(folder / path.name)
    words = ("--image_path", folder, "--use_original_file_name", "--strength", "0.5", "--seed", "1")
    found = draw(monkeypatch, tmp_path / "second", *model, *words)
    assert [Path(one.filename).name for one in found] == ["one.png", "two.png"]
    told = [(one.text["prompt"], one.text["negative-prompt"], one.text["original-image"]) for one in found]
    assert told == [("a cat", "ugly", "one.png"), ("a dog", "", "two.webp")]
    assert "Denoising strength: 0.5" in found[0].text["parameters"]
    more = (
        "--image_path",
        folder,
        "--strength",
        "0",
        "--sequential_file_name",
        "--sampler",
        "DPM++ 2M Karras",
    )
    still = draw(monkeypatch, tmp_path / "still", *model, *more)
    assert [Path(one.filename).name for one in still] == ["im_000001.png", "im_000002.png"]
    assert still[0].text["sampler"] == "dpm++_2m_karras"
    assert mean_gap(still[0], found[0]) > 1


def test_wrong_settings_of_drawing_are_one_line_each(tiny_model_file: Path, tmp_path: Path) -> None:
    words = ("--ckpt", tiny_model_file, "--strength", "1.5", "--sampler", "DPM++ 2S a")
    found = problems(*words, "--guidance_rescale", "2", "--pyramid_noise_prob", "0.5")
    assert sorted(found) == [
        "--guidance_rescale: must be at most 1",
        "--prompt: there is nothing to draw; give --prompt, --from_file or, with its text, --image_path",
        "--pyramid_noise_prob: needs --pyramid_noise_discount_range",
        "--sampler: nothing here draws like dpm++_2s_a; the nearest is dpmsingle",
        "--strength: must be from 0 to 1",
    ]
    line = "a --t 2 --f ../x --f a.gif"
    assert problems("--ckpt", tiny_model_file, "--prompt", line, "--sampler_schedule", "karras")[:2] == [
        "--sampler_schedule: ddim does not follow the schedule karras: it can follow trailing",
        "--prompt, column 3: --t expects a number from 0 to 1, got '2'",
    ]


def test_prompt_options_that_change_nothing_are_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tiny_model_file: Path, tmp_path: Path
) -> None:
    draw(monkeypatch, tmp_path, "--ckpt", tiny_model_file, "--prompt", "a --n b --l 1 --d 1,2")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert lines == [
        "warning: --d of 'a' has 2 seeds for 1 pictures; see --images_per_prompt",
        "warning: --n of 'a' has no effect at scale 1",
    ]


def test_of_a_batch_only_pictures_that_are_no_numbers_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tiny_model_file: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a --d 1\nb --d 2 --l 1e300\nc --d 3\n")
    words = ("--ckpt", tiny_model_file, "--from_file", prompts, "--batch_size", "3")
    with pytest.raises(SystemExit) as caught:
        draw(monkeypatch, tmp_path, *words)
    assert caught.value.code == 1
    pictures = [Image.open(path) for path in sorted(tmp_path.glob("*.png"))]
    assert [(picture.text["prompt"], picture.text["seed"]) for picture in pictures] == [
        ("a", "1"),
        ("c", "3"),
    ]
    printed = capsys.readouterr()
    assert f"2 pictures in {tmp_path}" in printed.out
    assert (
        "warning: the picture of 'b', seed 2, has values that are no numbers: it is not saved" in printed.err
    )
    last = printed.err.splitlines()[-1]
    assert last == "1 picture of 3 had values that are no numbers and were not saved; is the model whole?"


def test_ctrl_c_keeps_what_was_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tiny_model_file: Path, tmp_path: Path
) -> None:
    from library.generation import generate

    true_draw, drawn = generate.draw_latents, []

    def second_is_interrupted(*given):
        if drawn:
            raise KeyboardInterrupt
        drawn.append(true_draw(*given))
        return drawn[0]

    monkeypatch.setattr(generate, "draw_latents", second_is_interrupted)
    with pytest.raises(SystemExit) as caught:
        draw(monkeypatch, tmp_path, "--ckpt", tiny_model_file, "--prompt", "a", "--images_per_prompt", "3")
    assert caught.value.code == 130
    assert len(list(tmp_path.glob("*.png"))) == 1
    assert f"1 picture in {tmp_path}" in capsys.readouterr().out
