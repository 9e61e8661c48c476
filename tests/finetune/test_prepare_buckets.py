"""Buckets and latents made before training, against sd-scripts' sizes, and used by training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import call, run_here
from PIL import Image

from finetune import prepare_buckets_latents
from library.problems import UserError

DATA = Path(__file__).parents[1] / "data" / "preparation.json"
RUNS = json.loads(DATA.read_text(encoding="utf-8"))["buckets"]


def prepare(*words: object) -> None:
    call(prepare_buckets_latents.main, "prepare_buckets_latents.py", *words)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures and a broken one, and metadata that lacks one of them."""
    folder = tmp_path / "pictures"
    (folder / "in").mkdir(parents=True)
    for name, size in {"a.png": (64, 64), "b.png": (96, 32), "in/c.png": (48, 96)}.items():
        Image.effect_noise(size, 60).save(folder / name)
    metadata = {"a": {"caption": "a", "x": 1}, "other": {"tags": "t"}}
    (tmp_path / "in.json").write_text(json.dumps(metadata))
    return folder


SMALL = ("--max_resolution", "64,64", "--min_bucket_reso", 32, "--max_bucket_reso", 128)
STEPS = ("--bucket_reso_steps", 32)


def test_training_uses_the_latents_and_finds_its_pictures(
    pictures: Path, tmp_path: Path, tiny_model_file: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out.json"
    words = (pictures, tmp_path / "in.json", out, tiny_model_file, *SMALL, *STEPS, "--flip_aug")
    prepare(*words, "--batch_size", 2, "--skip_existing")
    sizes = {"image_size": [64, 64], "train_resolution": [64, 64]}
    assert json.loads(out.read_text()) == {
        "a": {"caption": "a", "x": 1, **sizes},
        "other": {"tags": "t"},
        "b": {"image_size": [96, 32], "train_resolution": [96, 32]},
    }
    said = capsys.readouterr().out
    assert "latents on disk: 0 were there already, 2 made" in said
    assert "buckets:\n  64x64   1 picture\n  96x32   1 picture\nmean aspect ratio error: 0.0000\n" in said
    entries = json.loads(out.read_text())
    del entries["other"]
    out.write_text(json.dumps(entries))
    run_here(
        "fine_tune.py",
        *("--pretrained_model_name_or_path", tiny_model_file, "--train_data_dir", pictures),
        *("--in_json", out, "--output_dir", tmp_path / "trained", "--resolution", "64,64"),
        *("--enable_bucket", "--min_bucket_reso", 32, "--max_bucket_reso", 128, *STEPS, "--flip_aug"),
        *("--cache_latents_to_disk", "--max_train_steps", 1, "--seed", 1),
    )
    assert "latents on disk: 2 were there already, 0 made" in capsys.readouterr().out


def test_folders_inside_and_broken_pictures(pictures: Path, tmp_path: Path, tiny_model_file: Path) -> None:
    (pictures / "bad.png").write_bytes(b"no picture")
    out = tmp_path / "out.json"
    words = (pictures, tmp_path / "in.json", out, tiny_model_file, *SMALL, *STEPS)
    with pytest.raises(UserError, match="bad.png: is text, not an image"):
        prepare(*words, "--full_path", "--recursive", "--alpha_mask", "yes", "--mixed_precision", "bf16")
    found = json.loads(out.read_text())
    assert found[str(pictures / "in" / "c.png")]["train_resolution"] == [32, 96]
    assert str(pictures / "bad.png") not in found
    assert len(list(pictures.rglob("*.npz"))) == 3


@pytest.mark.parametrize(
    "golden", RUNS, ids=lambda run: f"{run['max_resolution']} {run['bucket_no_upscale']}"
)
def test_sizes_are_those_of_sd_scripts(
    golden: dict, tmp_path: Path, tiny_model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from library.training.start import caching_alone

    monkeypatch.setattr(caching_alone, "fill_caches_alone", lambda run, pictures: None)
    for number, (size, *_) in enumerate(golden["rows"]):
        Image.new("RGB", size).save(tmp_path / f"{number}.png")
    (tmp_path / "in.json").write_text("{}")
    width, height = golden["max_resolution"]
    words = [tmp_path, tmp_path / "in.json", tmp_path / "out.json", tiny_model_file]
    words += ["--max_resolution", f"{width},{height}"]
    for name in ("min_bucket_reso", "max_bucket_reso", "bucket_reso_steps"):
        words += [f"--{name}", golden[name]]
    prepare(*words, *(["--bucket_no_upscale"] if golden["bucket_no_upscale"] else []))
    found = json.loads((tmp_path / "out.json").read_text())
    for number, (size, bucket, _, _, resolution) in enumerate(golden["rows"]):
        assert found[str(number)] == {"image_size": size, "train_resolution": resolution}
        assert bucket == resolution


def test_what_is_wrong_is_told(pictures: Path, tmp_path: Path, tiny_model_file: Path) -> None:
    for words, cause in (
        ((), "<train_data_dir>: is needed"),
        ((pictures, tmp_path / "no.json", "o.json", tiny_model_file), "no.json: there is no such file"),
        ((pictures, tmp_path / "in.json", "o.json", "no.safetensors"), "no.safetensors: there is no file"),
        ((pictures, tmp_path / "in.json", "o.json", tiny_model_file, "--v2"), "v2|SD 2"),
        ((pictures, tmp_path / "in.json", "o.json", tiny_model_file, "--recursive"), "needs --full_path"),
    ):
        with pytest.raises(UserError, match=cause):
            prepare(*words)
