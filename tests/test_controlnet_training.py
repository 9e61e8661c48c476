"""ControlNets that are trained: from pictures and hints to a file that is drawn with."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import run_here
from controls import write_control
from kinds import make_kind, write_lora
from PIL import Image
from safetensors import safe_open
from trainers import hints_of, options, two_buckets, weights

from library.models import load_model
from library.models.ldm.controlnet import load_control, start_control
from library.models.ldm.model import LatentDiffusion
from library.models.weights import load_tensors
from library.problems import UserError

Saved = Callable[[str, str], Path]
SD, XL = "train_control_net.py", "sdxl_train_control_net.py"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return two_buckets(tmp_path / "data")


def shown(pictures: Path) -> tuple[object, ...]:
    return "--conditioning_data_dir", hints_of(pictures)


@pytest.mark.parametrize("kind", ["sd1", "sd2-v", "sdxl"])
def test_a_control_net_is_trained_previewed_and_read_again(
    kind: str, saved_kind: Saved, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model_file, out = saved_kind(kind, "safetensors"), tmp_path / "out"
    before, script = model_file.read_bytes(), XL if kind == "sdxl" else SD
    hint = hints_of(pictures) / "0_00.png"
    (tmp_path / "prompts.txt").write_text(
        f"one --w 64 --h 64 --s 1 --d 1 --cn {hint}\none --s 1 --d 1 --w 64"
    )
    looks = ("--sample_prompts", tmp_path / "prompts.txt", "--sample_at_first", "--sample_every_n_steps", 3)
    more = (*looks, "--validation_split", 0.3, "--max_train_steps", 3, "--save_precision", "fp16")
    more += ("--control_net_lr", 1e-2) if kind == "sdxl" else ("--learning_rate", 1e-2)
    run_here(script, *options(model_file, pictures, out, *shown(pictures), *more))
    assert "ControlNet" in capsys.readouterr().out
    assert model_file.read_bytes() == before
    path = out / "x.safetensors"
    with safe_open(path, "pt") as file:
        metadata, names = file.metadata(), set(file.keys())
    assert ("controlnet_mid_block.weight" if kind == "sdxl" else "middle_block_out.0.weight") in names
    assert metadata["modelspec.architecture"].endswith("/controlnet")
    assert metadata["ss_hint_range"] == "0..1" and metadata["modelspec.title"] == "x"
    model = load_model(model_file)
    assert isinstance(model, LatentDiffusion)
    trained, start = load_control(path, model).tensors(), start_control(model, seed=3).tensors()
    assert {tensor.dtype for tensor in trained.values()} == {torch.float16}
    still = [name for name in start if torch.equal(trained[name], start[name].half())]
    assert len(still) < len(start) / 10  # some bias rounds to what it was
    # What is not shown a hint is drawn without the ControlNet.
    drawn = [sorted((out / "sample").glob(f"*_{moment}_*")) for moment in ("000000", "000003")]
    first, last = ([Image.open(picture) for picture in shown] for shown in drawn)
    assert first[0].tobytes() != last[0].tobytes() and first[1].tobytes() == last[1].tobytes()
    assert last[0].text["control-image"] == "0_00.png" and "control-image" not in last[1].text


def test_caches_checkpointing_workers_and_a_frozen_model_of_fewer_bits_train_the_same(
    tiny_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    still = ("--max_train_steps", 2, "--learning_rate", 1e-3)

    def train(name: str, *more: object) -> dict[str, torch.Tensor]:
        words = options(tiny_model_file, pictures, tmp_path / name, *shown(pictures), *still, *more)
        run_here(SD, *words)
        return load_tensors(tmp_path / name / "x.safetensors")

    plain = train("plain")
    lean = train("lean", "--gradient_checkpointing", "--max_data_loader_n_workers", 2)
    assert all(torch.equal(lean[name], tensor) for name, tensor in plain.items())
    half = train(
        "half", "--cache_latents", "--mixed_precision", "bf16", "--fp8_base_unet", "--gradient_checkpointing"
    )
    assert all(tensor.isfinite().all() for tensor in half.values())
    moved = sum(not torch.equal(half[name], tensor) for name, tensor in plain.items())
    assert moved > len(plain) / 2
    assert {tensor.dtype for tensor in half.values()} == {torch.float32}


def test_cached_texts_and_a_dry_run(
    saved_kind: Saved, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = options(saved_kind("sdxl", "safetensors"), pictures, tmp_path / "out", *shown(pictures))
    words = [word for word in words if word != "--shuffle_caption"]
    del words[words.index("--caption_tag_dropout_rate") : words.index("--caption_tag_dropout_rate") + 2]
    caches = ("--cache_text_encoder_outputs", "--cache_latents", "--max_train_steps", 2)
    with pytest.raises(SystemExit) as ended:
        run_here(XL, *words, *caches, "--dry_run", "--save_model_as", "diffusers_safetensors")
    assert ended.value.code == 0 and not (tmp_path / "out").exists()
    page = capsys.readouterr().out
    assert re.search(r"controlnet_new +451,824 +learning rate 0.0001", page)
    assert "memory    about" in page and "--fp8_base" in page
    assert re.search(r"\n +x +[\d.]+ MB +the result", page)
    run_here(XL, *words, *caches, "--save_model_as", "diffusers_safetensors")
    assert sorted(path.name for path in (tmp_path / "out" / "x").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]


def test_a_run_goes_on_from_a_file_with_its_range_of_hints(
    tiny_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    start = write_control(tmp_path / "start.safetensors", make_kind("sd1"))
    common = (*shown(pictures), "--controlnet_model_name_or_path", start, "--max_train_steps", 1)

    def train(name: str, *more: object) -> Path:
        run_here(SD, *options(tiny_model_file, pictures, tmp_path / name, *common, *more))
        return tmp_path / name / "x.safetensors"

    one, other = train("one"), train("other", "--hint_range", "-1..1")
    before, after = load_tensors(start), load_tensors(one)
    assert max((before[name] - after[name]).abs().max() for name in before) < 0.01
    assert weights(one) != weights(other)
    again = ("--controlnet_model_name_or_path", other)
    with safe_open(train("again", *again), "pt") as file:
        assert file.metadata()["ss_hint_range"] == "-1..1"


def test_folders_in_a_dataset_file_and_pictures_without_class_folders(
    tiny_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    hints, images = hints_of(pictures), next(pictures.iterdir())
    config = tmp_path / "data.toml"
    config.write_text(
        f"[[datasets]]\nresolution = 64\n[[datasets.subsets]]\nimage_dir = {str(images)!r}\n"
        f"conditioning_data_dir = {str(hints)!r}\n"
    )
    length = ("--max_train_steps", 1, "--save_model_as", "pt")
    run_here(SD, *options(tiny_model_file, images, tmp_path / "a", *shown(pictures), *length))
    run_here(
        SD,
        *options(tiny_model_file, images, tmp_path / "b", "--dataset_config", config, *length)[:2],
        "--dataset_config",
        config,
        "--output_dir",
        tmp_path / "b",
        *length,
    )
    assert (tmp_path / "a" / "x.pt").exists() and (tmp_path / "b" / "last.pt").exists()


def test_what_is_wrong_is_told_in_one_line_before_the_start(
    tiny_model_file: Path, saved_kind: Saved, pictures: Path, tmp_path: Path
) -> None:
    hints = hints_of(pictures)

    def problems(*more: object, script: str = SD, data: Path = pictures) -> list[str]:
        words = options(tiny_model_file, data, tmp_path / "out", "--max_train_steps", 1, *more)
        with pytest.raises(UserError) as caught:
            run_here(script, *words)
        return [str(problem) for problem in caught.value.problems]

    given = ("--conditioning_data_dir", hints)
    assert problems() == [
        "--conditioning_data_dir: is needed: give the folder with a conditioning image for each image"
    ]
    (line,) = problems("--conditioning_data_dir", tmp_path / "no")
    assert "there is no such folder" in line
    lora = write_lora(tmp_path / "lora.safetensors", tiny_model_file, 0.1)
    (line,) = problems(*given, "--controlnet_model_name_or_path", lora)
    assert line == f"{lora}: is a LoRA, not a ControlNet; give a whole ControlNet"
    other = write_control(tmp_path / "other.safetensors", make_kind("sdxl"))
    (line,) = problems(*given, "--controlnet_model_name_or_path", other)
    assert line.startswith(f"{other}: is for texts of 80 numbers; this SD 1.x model has texts of 32 numbers")
    (tmp_path / "prompts.txt").write_text("one --cn nowhere.png\n")
    looks = ("--sample_prompts", tmp_path / "prompts.txt", "--sample_at_first")
    assert problems(*given, *looks) == ["nowhere.png: there is no such file; check its name and folder"]
    (line,) = problems(*given, "--learning_rate", 0)
    assert line == "--learning_rate: every rate is 0: nothing would be trained"
    (line,) = problems(*given, script=XL)
    assert "is an SD 1.x model, this command is for SDXL" in line
    (line,) = problems(*given, "--in_json", tmp_path / "x.json")
    assert line.startswith("--conditioning_data_dir: cannot be combined with --in_json")
    (line,) = problems(*given, "--reg_data_dir", pictures)
    assert line.startswith("--reg_data_dir: cannot have conditioning images")
    broken = tmp_path / "broken"
    shutil.copytree(hints, broken)
    (broken / "0_00.png").unlink()
    Image.new("RGB", (64, 32)).save(broken / "0_01.png")
    (broken / "0_02.png").write_text("text")
    found = problems("--conditioning_data_dir", broken)
    assert len(found) == 3
    assert any("there is no conditioning image for 1 of 7 images: 0_00.png" in line for line in found)
    assert any("0_01.png: is 64x32, but the image it belongs to, " in line for line in found)
    assert any("0_02.png: is text, not an image" in line for line in found)
    subsets = tmp_path / "data.toml"
    subsets.write_text(
        f"[[datasets]]\nresolution = 64\n[[datasets.subsets]]\nimage_dir = {str(pictures)!r}\n"
    )
    found = problems("--dataset_config", subsets)
    assert any(
        "has no conditioning images; give its subset a conditioning_data_dir" in line for line in found
    )
