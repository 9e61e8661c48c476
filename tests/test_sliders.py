"""Sliders: from a file of prompts to a network whose strength shows in previews."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import launch, run_here
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from trainers import weights

from library.problems import UserError

SLIDER = """
[slider]
resolutions = [64]
batch_size = {}
[[slider.targets]]
target_class = "person"
positive = "old person"
negative = "young person"
"""


def words(model: Path, folder: Path, out: str, *more: object, samples: int = 2) -> list[object]:
    file = folder / f"slider of {samples}.toml"
    file.write_text(SLIDER.format(samples))
    return [
        *("--pretrained_model_name_or_path", model, "--prompts_file", file, "--output_dir", folder / out),
        *("--output_name", "x", "--seed", 3, "--learning_rate", 1e-2, "--max_denoising_steps", 2, *more),
    ]


def train(model: Path, folder: Path, out: str, *more: object, script: str = "train_leco.py") -> Path:
    run_here(script, *words(model, folder, out, *more))
    return folder / out / "x.safetensors"


def test_a_run_with_stops_is_one_without_and_previews_show_strengths(
    shallow_model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    lines = (f"a person --w 64 --h 64 --s 1 --d 1 --am {strength}\n" for strength in (-1, 0, 1))
    (tmp_path / "prompts.txt").write_text("".join(lines))
    looks = ("--sample_prompts", tmp_path / "prompts.txt", "--sample_every_n_steps", 3, "--sample_at_first")
    more = ("--use_ema", "--ema_decay", 0.5, "--gradient_accumulation_steps", 2, "--network_dropout", 0.1)
    more += ("--save_state", *looks)
    whole = train(
        shallow_model_file, tmp_path, "whole", *more, "--max_train_steps", 5, "--save_every_n_steps", 1
    )
    said = capsys.readouterr().out
    assert "4 concepts from slider of 2.toml:" in said
    assert "'person' -> '' + ('old person' - 'young person') at 1, 64x64" in said
    resume: tuple[object, ...] = ()
    for stop in (2, 5):
        workers = ("--max_data_loader_n_workers", stop)
        part = train(
            shallow_model_file, tmp_path, f"to {stop}", *more, *workers, "--max_train_steps", stop, *resume
        )
        assert weights(part) == weights(whole.with_name(f"x-step{stop:08d}.safetensors")), stop
        resume = ("--resume", part.with_name("x-state"))
    drawn = [
        [Image.open(path).tobytes() for path in sorted((whole.parent / "sample").glob(f"*_{step}_*"))]
        for step in ("000000", "000003")
    ]
    assert len(set(drawn[0])) == 1  # a new network changes nothing at any strength
    assert len(set(drawn[1])) == 3 and drawn[1][1] == drawn[0][1]  # none at 0
    with safe_open(whole, "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_leco_prompt_count"] == "4"
    assert metadata["ss_leco_prompts_file"] == "slider of 2.toml"
    assert json.loads(metadata["ss_leco_preview"])[1]["positive"] == "old person"
    assert metadata["ss_network_dim"] == "4" and metadata["ss_network_alpha"] == "1.0"
    assert "concepts" in (whole.parent / "x-report.html").read_text(encoding="utf-8")


@pytest.mark.long
def test_two_processes_learn_what_one_with_twice_the_samples_learns(
    shallow_model_file: Path, tmp_path: Path
) -> None:
    plain = ("--optimizer_type", "SGDNesterov", "--max_grad_norm", 0, "--learning_rate", 100)
    plain += ("--max_train_steps", 3, "--gradient_accumulation_steps", 2)
    one = train(shallow_model_file, tmp_path, "one", *plain)
    launch("train_leco.py", *words(shallow_model_file, tmp_path, "two", *plain, samples=1), processes=2)
    first, second = load_file(one), load_file(tmp_path / "two" / "x.safetensors")
    largest = max(value.abs().max().item() for key, value in first.items() if "lora_up" in key)
    gap = max((second[key] - value).abs().max().item() for key, value in first.items())
    assert largest > 1e-3 and gap < largest / 50, (largest, gap)


@pytest.mark.long
def test_any_kind_of_network_on_sdxl_and_a_dry_run(
    shallow_kind: Callable[[str, str], Path],
    shallow_model_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    model, script = shallow_kind("sdxl", "safetensors"), "sdxl_train_leco.py"
    more = ("--mixed_precision", "bf16", "--full_bf16", "--gradient_checkpointing", "--max_train_steps", 2)
    kind = ("--network_module", "networks.hypernetwork", "--save_model_as", "safetensors")
    assert load_file(train(model, tmp_path, "out", *more, *kind, script=script))
    with pytest.raises(SystemExit) as end:
        train(shallow_model_file, tmp_path, "dry", "--max_train_steps", 2, "--dry_run")
    assert end.value.code == 0 and "dry run: no problems found" in capsys.readouterr().out
    assert not (tmp_path / "dry").exists() or not any((tmp_path / "dry").iterdir())


def test_what_is_wrong_is_told_before_anything_is_loaded(shallow_model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[[prompts]]\ntarget = 3")
    wrong: dict[tuple[object, ...], str] = {
        ("--prompts_file", tmp_path / "none.toml"): "none.toml: there is no such file",
        ("--prompts_file", tmp_path / "bad.toml"): "prompts 1: target expects a text, got 3",
        ("--max_denoising_steps", 1): "--max_denoising_steps: must be 2 or more",
        ("--network_train_text_encoder_only",): "leaves nothing to train: a slider is in the U-Net",
        ("--network_module", "networks.control_net_lllite"): "is trained with a conditioning image",
        ("--train_data_dir", tmp_path): "is an option of the training commands",
        ("--token_string", "<it>"): "is an option of train_textual_inversion.py",
    }
    for given, message in wrong.items():
        with pytest.raises(UserError) as caught:
            train(shallow_model_file, tmp_path, "out", "--max_train_steps", 1, *given)
        assert message in str(caught.value) and len(caught.value.problems) == 1, given
    with pytest.raises(UserError, match="--prompts_file: is needed: the file that says what is taught"):
        run_here("train_leco.py", "--pretrained_model_name_or_path", shallow_model_file)
