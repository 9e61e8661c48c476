"""ControlNet-LLLite: from pictures and their conditioning images to a file that pictures are drawn with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import make_pictures, run_here
from network_contract import fill
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from trainers import hints_of, options, two_buckets, weights

from library.models.base import Model
from library.models.saving import Saving
from library.problems import UserError
from networks import control_net_lllite

SMALL = ("--cond_emb_dim", 8, "--network_dim", 4)


def train(model: Path, pictures: Path, out: Path, *more: object, script: str = "") -> Path:
    script = script or "train_control_net_lllite.py"
    hints = () if "--conditioning_data_dir" in more else ("--conditioning_data_dir", hints_of(pictures))
    run_here(script, *options(model, pictures, out, *hints, *more))
    return out / "x.safetensors"


def test_one_is_trained_with_everything_and_its_previews_see_the_picture(
    tiny_model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data, out = two_buckets(tmp_path / "data"), tmp_path / "out"
    hints = hints_of(data)
    first, second = sorted(hints.iterdir())[:2]
    ends = (f"--cn {first}", f"--cn {second}", "")
    (tmp_path / "prompts.txt").write_text("".join(f"a --w 64 --h 64 --s 1 --d 1 {end}\n" for end in ends))
    looks = ("--sample_prompts", tmp_path / "prompts.txt", "--sample_at_first", "--sample_every_n_steps", 4)
    more = ("--validation_split", 0.3, "--use_ema", "--ema_decay", 0.5, "--cache_latents")
    path = train(
        tiny_model_file, data, out, *looks, *more, *SMALL, "--learning_rate", 1, "--max_train_steps", 4
    )
    assert "network of the U-Net" in capsys.readouterr().out
    before, after = (sorted((out / "sample").glob(f"*_{step}_*")) for step in ("000000", "000004"))
    pictures = [[Image.open(one).tobytes() for one in drawn] for drawn in (before, after)]
    assert (
        len(set(pictures[0])) == 1 and pictures[0][2] == pictures[1][2]
    )  # nothing is learned, nothing shown
    assert len(set(pictures[1])) == 3
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/control-net-lllite"
    assert metadata["ss_network_dim"] == "4"
    assert (out / "x-report.html").exists()


def test_workers_and_cached_texts_change_nothing_and_training_goes_on_from_a_file(
    saved_kind: Callable[[str, str], Path], tmp_path: Path
) -> None:
    model, data = saved_kind("sdxl", "safetensors"), two_buckets(tmp_path / "data")
    calm = ("--caption_tag_dropout_rate", 0, "--shuffle_caption=false", "--max_train_steps", 2)
    calm += ("--optimizer_type", "SGDNesterov", "--learning_rate", 0.1)  # Adam takes rounding for more
    script = "sdxl_train_control_net_lllite.py"

    def run(name: str, *more: object) -> Path:
        return train(model, data, tmp_path / name, *calm, *more, script=script)

    whole = run("whole", *SMALL)
    assert weights(run("workers", *SMALL, "--max_data_loader_n_workers", 2)) == weights(whole)
    cached = load_file(run("cached", *SMALL, "--cache_text_encoder_outputs"))
    for key, value in load_file(whole).items():
        torch.testing.assert_close(cached[key], value, rtol=1e-4, atol=1e-6)
    again = load_file(run("again", "--network_weights", whole, "--learning_rate", 1e-9))
    for key, value in load_file(whole).items():  # of its own widths
        torch.testing.assert_close(again[key], value, rtol=0, atol=1e-6)


def test_a_dry_run_has_its_step_and_writes_nothing(
    tiny_model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = two_buckets(tmp_path / "data")
    with pytest.raises(SystemExit) as end:
        train(tiny_model_file, data, tmp_path / "out", *SMALL, "--max_train_steps", 3, "--dry_run")
    assert end.value.code == 0
    assert "dry run: no problems found" in capsys.readouterr().out
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_the_generator_draws_with_several(tiny_model: Model, tiny_model_file: Path, tmp_path: Path) -> None:
    asked = {"dim": 4, "alpha": None, "dropout": None, "arguments": {}, "parts": ("unet",)}
    files = [tmp_path / f"{seed}.safetensors" for seed in (1, 2)]
    for seed, file in enumerate(files, start=1):
        fill(control_net_lllite.create(tiny_model, **asked, seed=seed), 0.3).save(file, Saving("safetensors"))
    hints = [make_pictures(tmp_path / f"hint {seed}", 1, seed=seed) / f"{seed}_00.png" for seed in (1, 2)]
    one, two = (("--control_net_lllite_models", *files[:count]) for count in (1, 2))

    def draw(name: str, *more: object) -> bytes:
        words = ("--prompt", "a", "--W", 64, "--H", 64, "--steps", 2, "--seed", 1, *more)
        run_here("gen_img_diffusers.py", "--ckpt", tiny_model_file, "--outdir", tmp_path / name, *words)
        (picture,) = (tmp_path / name).iterdir()
        return Image.open(picture).tobytes()

    plain = draw("plain")
    first = draw("first", *one, "--guide_image_path", hints[0])
    assert len({plain, first, draw("other", *one, "--guide_image_path", hints[1])}) == 3
    both = ("--guide_image_path", *hints)
    assert draw("second off", *two, *both, "--control_net_multipliers", 1, 0) == first
    assert draw("second never", *two, *both, "--control_net_ratios", 1, 0) == first
    assert draw("second for a while", *two, *both, "--control_net_ratios", 1, 0.5) not in (first, plain)
    lora = tmp_path / "lora.safetensors"
    save_file({"lora_unet_x.lora_down.weight": torch.ones(2, 4)}, lora)
    wrong: dict[tuple[object, ...], str] = {
        ("--control_net_lllite_models", lora, *both): "holds no ControlNet-LLLite weights",
        (*one,): "no prompt has a picture to show; give --guide_image_path, or --cn in prompts",
        (
            *one,
            *both,
            "--control_net_multipliers",
            1,
            1,
        ): "has more values than there are networks of control",
        (*one, *both, "--control_net_models", lora): "contradicts --control_net_models",
    }
    for given, message in wrong.items():
        with pytest.raises(UserError, match=message):
            draw("wrong", *given)


def test_what_is_wrong_is_told_before_anything_is_loaded(tiny_model_file: Path, tmp_path: Path) -> None:
    data = two_buckets(tmp_path / "data")
    hints, few, wide = hints_of(data), tmp_path / "few", tmp_path / "wide"
    few.mkdir()
    wide.mkdir()
    (few / "a.png").write_bytes((next(hints.iterdir())).read_bytes())
    for path in hints.iterdir():
        ImageOps.pad(Image.open(path), (128, 32)).save(wide / path.name)
    lora = tmp_path / "lora.safetensors"
    save_file({"lora_unet_x.lora_down.weight": torch.ones(2, 4)}, lora)
    (tmp_path / "prompts.txt").write_text("a --cn none.png\n")
    words = [("--sample_prompts", tmp_path / "prompts.txt", "--sample_every_n_steps", 1)]
    wrong: dict[tuple[object, ...], str] = {
        ("--conditioning_data_dir", few): "there is no conditioning image for 7 of 7 images",
        ("--conditioning_data_dir", wide): "give both the same aspect ratio",
        ("--conditioning_data_dir", tmp_path / "none"): "none",
        ("--network_weights", lora): "holds no ControlNet-LLLite weights; for a LoRA give",
        ("--network_weights", tmp_path / "none.pt"): "there is no such file of network weights",
        ("--cond_emb_dim", 5): "--cond_emb_dim: must be even: a convolution has half of it",
        ("--cond_emb_dim", 1): "--cond_emb_dim: must be 2 or more",
        ("--network_dropout", 1): "--network_dropout: is a probability below 1",
        ("--network_alpha", 1): "--network_alpha: is an option of train_network.py",
        words[0]: "none.png",
    }
    for given, message in wrong.items():
        with pytest.raises(UserError) as caught:
            train(tiny_model_file, data, tmp_path / "out", "--max_train_steps", 1, *given)
        assert message in str(caught.value), given
        assert len(caught.value.problems) == (7 if wide in given else 1), given
    with pytest.raises(UserError, match="--conditioning_data_dir: is needed: give the folder"):
        run_here("train_control_net_lllite.py", *options(tiny_model_file, data, tmp_path / "out"))
    network = ("--network_module", "networks.control_net_lllite", "--max_train_steps", 1)
    with pytest.raises(UserError, match="use train_control_net_lllite.py, for SDXL sdxl_train_control"):
        run_here("train_network.py", *options(tiny_model_file, data, tmp_path / "out", *network))
    with pytest.raises(UserError, match="SDXL"):
        script = "sdxl_train_control_net_lllite.py"
        train(tiny_model_file, data, tmp_path / "out", "--max_train_steps", 1, script=script)
