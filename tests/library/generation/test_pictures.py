"""Names and files of a run's pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from library.generation.picture_texts import ModelName, named_model, prompts_in
from library.generation.pictures import PictureNames, save_picture
from library.generation.request import PromptRequest
from library.options.drawing_files import PictureFileOptions
from library.problems import UserError

GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "drawing.json").read_text())


def names(requests: list[PromptRequest], stages: tuple[str, ...] = ("",), **options: object) -> list[str]:
    found = PictureNames("20240131235959", PictureFileOptions(**options))
    return [found.name(request, stage) for request in requests for stage in stages]


def test_file_names_are_those_of_sd_scripts() -> None:
    """Of its sessions of one picture, and of those with names that count."""
    one = [PromptRequest("a", seed=42)]
    for session, made in {
        "prompt_one": names(one),
        "highres": names([PromptRequest("a", seed=9)], ("1",)),
        "batch_sequential": names([PromptRequest("a", seed=1)] * 6, sequential_file_name=True),
        "highres_save1st": names(one, ("0", "1"), sequential_file_name=True),
        "img2img_orig_name": names(
            [PromptRequest("a", seed=1, image=Path(f"src/{name}.jpg")) for name in ("a1", "b2", "c3")],
            use_original_file_name=True,
        ),
    }.items():
        golden = [name.replace("{ts}", "20240131235959") for name, _ in GOLDEN["sessions"][session]["files"]]
        assert made == golden, session


def test_no_name_is_given_twice() -> None:
    """The original numbers within a batch, so pictures of one second, seed and place are one file."""
    alike = [PromptRequest("a", seed=7)] * 3
    assert names(alike) == [f"im_20240131235959_{number:03d}_7.png" for number in range(3)]
    assert names([replace(one, file="sub/x.png") for one in alike]) == [
        "sub/x.png",
        "sub/x_2.png",
        "sub/x_3.png",
    ]
    assert names([replace(alike[0], file=name) for name in ("x", "X.PNG", "x_2.png", "v1.5")]) == [
        "x.png",
        "X_2.PNG",
        "x_2_2.png",
        "v1.5.png",
    ]
    originals = [replace(alike[0], image=Path("a.jpg")), replace(alike[0], image=Path("b/a.png")), alike[0]]
    assert names(originals, use_original_file_name=True, image_format="webp") == [
        "a.webp",
        "a_2.webp",
        "im_20240131235959_002_7.webp",
    ]


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_every_format_tells_the_prompt_again(suffix: str, tmp_path: Path) -> None:
    request = PromptRequest(
        "ein Mädchen 少女,\n(red:1.2)", "ugly, \\(bad\\)", seed=8, sampler="dpm++_2m_karras"
    )
    path = tmp_path / f"x.{suffix}"
    save_picture(
        path, Image.new("RGB", (16, 8), (200, 20, 3)), request, model=ModelName("my, model", "0123456789")
    )
    assert prompts_in(path) == (request.prompt, request.negative)
    with Image.open(path) as picture:
        assert picture.size == (16, 8)
        assert np.abs(np.asarray(picture.convert("RGB"), int)[0, 0] - (200, 20, 3)).max() <= 3 * (
            suffix == "jpg"
        )
        if suffix == "png":
            picture.text.pop("prompt")
            parameters = picture.text["parameters"]
        else:
            comment = picture.getexif().get_ifd(0x8769)[0x9286]
            parameters = comment.removeprefix(b"UNICODE\0").decode("utf-16-be")
    assert parameters == (
        "ein Mädchen 少女,\n(red:1.2)\nNegative prompt: ugly, \\(bad\\)\nSteps: 30, Sampler: DPM++ 2M, "
        "Schedule type: Karras, CFG scale: 7.5, Seed: 8, Size: 512x512, "
        "Model hash: 0123456789, Model: my  model, RNG: CPU"
    )


def test_prompts_are_read_from_automatic1111s_pictures_too(tmp_path: Path) -> None:
    text, told = (
        PngInfo(),
        "a cat,\nby the sea\nNegative prompt: dog,\nugly\nSteps: 20, Sampler: Euler a, Seed: 1",
    )
    text.add_text("parameters", told)
    Image.new("RGB", (8, 8)).save(tmp_path / "theirs.png", pnginfo=text)
    assert prompts_in(tmp_path / "theirs.png") == ("a cat,\nby the sea", "dog,\nugly")
    Image.new("RGB", (8, 8)).save(tmp_path / "bare.png")
    with pytest.raises(UserError, match="says nothing of the prompt it was drawn with"):
        prompts_in(tmp_path / "bare.png")
    (tmp_path / "no.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="cannot be read"):
        prompts_in(tmp_path / "no.png")


def test_a_jpeg_with_no_room_for_its_settings_is_written_without(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save_picture(tmp_path / "x.jpg", Image.new("RGB", (8, 8)), PromptRequest("long " * 10_000, seed=1))
    assert "has no room for the settings" in capsys.readouterr().err
    assert Image.open(tmp_path / "x.jpg").size == (8, 8)


def test_a_picture_carries_its_settings(tmp_path: Path) -> None:
    request = PromptRequest("ein Mädchen 少女", "ugly", steps=3, scale=1.5, seed=8, sampler="euler")
    save_picture(tmp_path / "new" / "x.png", Image.new("RGB", (8, 8), (1, 2, 3)), request)
    with Image.open(tmp_path / "new" / "x.png") as picture:
        assert picture.getpixel((0, 0)) == (1, 2, 3)
        assert picture.text == {
            "prompt": "ein Mädchen 少女",
            "seed": "8",
            "sampler": "euler",
            "steps": "3",
            "scale": "1.5",
            "negative-prompt": "ugly",
            "parameters": "ein Mädchen 少女\nNegative prompt: ugly\nSteps: 3, Sampler: Euler, "
            "CFG scale: 1.5, Seed: 8, Size: 512x512, RNG: CPU",
        }


def test_a_models_hash_is_that_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "cat.v1.safetensors").write_bytes(b"abc")
    assert named_model(str(tmp_path / "cat.v1.safetensors")) == ("cat.v1", "ba7816bf8f")  # FIPS 180's example
    assert named_model(str(tmp_path)) == (tmp_path.stem, "")
    assert named_model("someone/model") == ("model", "")
