"""Caches filled by commands of their own are what training uses."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from commands import call, launch, run_here
from PIL import Image
from trainers import options, two_buckets

from library.options.fields import sections_of, specs_of
from library.options.foreign_config import IGNORED
from library.problems import UserError
from tools import cache_latents, cache_text_encoder_outputs

OPTIONS = json.loads((Path(__file__).parents[1] / "data" / "cache_options.json").read_text())
NETWORK = ("--network_module", "networks.lora", "--network_dim", 2, "--network_train_unet_only")
STEPS = ("--max_train_steps", 1)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return two_buckets(tmp_path / "pictures")


def words(model: Path, pictures: Path) -> list[object]:
    """A training's options, without those that change captions."""
    drop = {"--shuffle_caption": 1, "--caption_tag_dropout_rate": 2}
    found = options(model, pictures, pictures.parent / "out")
    for name, length in drop.items():
        start = found.index(name)
        found[start : start + length] = []
    return found


def test_training_finds_latents_and_text_outputs_and_makes_none(
    tiny_model_file: Path, pictures: Path, capsys: pytest.CaptureFixture
) -> None:
    training = [*words(tiny_model_file, pictures), "--mixed_precision", "bf16"]
    call(cache_latents.main, "cache_latents.py", *training, "--vae_batch_size", 2)
    assert "latents on disk: 0 were there already, 7 made" in capsys.readouterr().out
    call(cache_text_encoder_outputs.main, "cache_text_encoder_outputs.py", *training)
    assert "text outputs on disk: 0 were there already, 7 made" in capsys.readouterr().out
    caches = ("--cache_latents_to_disk", "--cache_text_encoder_outputs_to_disk")
    run_here("train_network.py", *training, *NETWORK, *STEPS, *caches)
    said = capsys.readouterr().out
    assert "latents on disk: 7 were there already, 0 made" in said
    assert "text outputs on disk: 7 were there already, 0 made" in said
    call(cache_latents.main, "cache_latents.py", *training, "--skip_existing")
    assert "latents on disk: 7 were there already, 0 made" in capsys.readouterr().out


@pytest.mark.long
def test_several_processes_share_the_work(tiny_model_file: Path, pictures: Path) -> None:
    done = launch("tools/cache_latents.py", *words(tiny_model_file, pictures), processes=2)
    assert done.stdout.count("latents on disk: 0 were there already, 7 made") == 1
    assert len(list(pictures.rglob("*.npz"))) == 7


def test_bad_pictures_are_listed_and_a_wrong_family_is_told(tiny_model_file: Path, pictures: Path) -> None:
    with pytest.raises(UserError, match="--sdxl: .* is a model of the family sd"):
        call(cache_latents.main, "cache_latents.py", *words(tiny_model_file, pictures), "--sdxl")
    broken = pictures / "1_sks thing" / "broken.png"
    Image.effect_noise((64, 64), 99).save(broken)
    broken.write_bytes(broken.read_bytes()[:900])
    with pytest.raises(UserError, match="broken.png: is cut off"):
        call(cache_latents.main, "cache_latents.py", *words(tiny_model_file, pictures))
    skip = ("--on_bad_image", "skip")
    call(cache_latents.main, "cache_latents.py", *words(tiny_model_file, pictures), *skip)
    assert len(list(pictures.rglob("*.npz"))) == 7


def test_the_other_caches_are_left_to_the_other_command(
    tiny_model_file: Path, pictures: Path, capsys: pytest.CaptureFixture
) -> None:
    training = [*words(tiny_model_file, pictures), "--cache_text_encoder_outputs_to_disk", "--cache_latents"]
    call(cache_latents.main, "cache_latents.py", *training)
    said = capsys.readouterr()
    assert "--cache_text_encoder_outputs_to_disk has no effect" in said.err
    assert "text outputs on disk" not in said.out and "7 made" in said.out


@pytest.mark.parametrize("command", ["cache_latents", "cache_text_encoder_outputs"])
def test_every_option_of_sd_scripts_is_there_or_of_another_family(command: str) -> None:
    """Those of other families of models are not, nor what has no meaning here."""
    sections = sections_of(importlib.import_module(f"tools.{command}").Run).values()
    known = {
        flag.removeprefix("--")
        for section in sections
        for spec in specs_of(section)
        for flag in (spec.flag, *spec.aliases)
    }
    lacking = set(OPTIONS[command]) - known - {"config_file", "output_config"}
    assert lacking <= IGNORED.keys() | {"flux", "controlnet_model_name_or_path"} | DEEPSPEED


DEEPSPEED = {
    *("dataset_class", "deepspeed", "zero_stage", "offload_optimizer_device", "offload_optimizer_nvme_path"),
    *("offload_param_device", "offload_param_nvme_path", "zero3_init_flag", "zero3_save_16bit_model"),
    "fp16_master_weights_and_gradients",
}
