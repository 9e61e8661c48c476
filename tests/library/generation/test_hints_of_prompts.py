"""Pictures beside the prompt: where they are named, how they are read, and who is shown them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from library.generation.generate import generate
from library.generation.hints import _warn_of_stretching, check_hints, hint_files, with_hints
from library.generation.prompt_options import generator_syntax, training_syntax
from library.generation.prompts import parse_prompt, read_prompts
from library.generation.request import PromptRequest
from library.models import load_model
from library.models.condition import Condition, Residuals
from library.problems import UserError

A, B, C, D = (Path(f"{name}.png") for name in "abcd")
ONE, TWO = PromptRequest("one"), PromptRequest("two")


def picture(path: Path, colour: str, size: tuple[int, int] = (64, 64)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def test_a_line_and_a_table_name_a_picture(tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    file.write_text('[{"prompt": "one", "controlnet_image": "a b.png"}]')
    expected = dataclasses.replace(ONE, hints=(Path("a b.png"),))
    assert read_prompts(file, training_syntax(8)) == [expected]
    for syntax in (training_syntax(8), generator_syntax(8)):
        assert parse_prompt("one --CN  a b.png --s 30", syntax, where="here") == expected
    with pytest.raises(UserError, match="here, column 5: --cn expects the path of a picture, got ''"):
        parse_prompt("one --cn", generator_syntax(8), where="here")


def test_every_picture_that_cannot_be_read_is_named_once(tmp_path: Path) -> None:
    good, text = picture(tmp_path / "good.png", "red"), tmp_path / "text.png"
    text.write_text("no picture")
    missing = [ONE.with_hints((good, tmp_path / "no.png")), TWO.with_hints((tmp_path / "no.png", text))]
    with pytest.raises(UserError) as caught:
        check_hints(missing)
    assert list(map(str, caught.value.problems)) == [
        f"{tmp_path / 'no.png'}: there is no such file; check its name and folder",
        f"{text}: is text, not an image; copy or download it again, or remove it",
    ]


def test_a_folder_means_its_pictures_by_name(tmp_path: Path) -> None:
    for name in ("2.png", "10.jpg", ".hidden.png"):
        picture(tmp_path / name, "red")
    (tmp_path / "2.txt").write_text("a caption")
    assert hint_files([A, tmp_path]) == [A, tmp_path / "10.jpg", tmp_path / "2.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="--guide_image_path .*empty: holds no pictures"):
        hint_files([tmp_path / "empty"])


@pytest.mark.parametrize(
    ("given", "networks", "expected"),
    [
        ([A], 1, [(A,), (A,)]),
        ([A], 3, [(A,), (A,)]),
        ([A, B], 1, [(A,), (B,)]),
        ([A, B], 2, [(A, B), (A, B)]),
        ([A, B, C, D], 2, [(A, B), (C, D)]),
        ([A, B], 3, [(A,), (B,)]),
    ],
)
def test_pictures_go_to_prompts_and_networks_in_order(
    given: list[Path], networks: int, expected: list[tuple[Path, ...]]
) -> None:
    assert [request.hints for request in with_hints([ONE, TWO], given, networks)] == expected


def test_a_prompt_keeps_its_own_picture_and_too_few_are_refused(capsys: pytest.CaptureFixture) -> None:
    own = TWO.with_hints((D,))
    assert [r.hints for r in with_hints([ONE, own, TWO], [A, B, C], 1)] == [(A,), (D,), (C,)]
    with pytest.raises(UserError, match="--guide_image_path: has 2 pictures for 3 prompts; give one for all"):
        with_hints([ONE, own, TWO], [A, B], 1)
    assert capsys.readouterr().err == ""
    with_hints([ONE, TWO], [A, B, C], 1)
    assert "the last 1 pictures belong to no prompt" in capsys.readouterr().err


def test_control_is_shown_the_hint_in_both_halves_of_guidance_and_how_far_drawing_is(
    tiny_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    _warn_of_stretching.cache_clear()
    model, shown = load_model(tiny_model_file), []
    seen: list[Condition] = []
    nothing = Residuals((), torch.zeros(()))

    def control(x: Tensor, t: Tensor, condition: Condition) -> Residuals:
        shown.append(condition)
        return nothing

    def run_denoiser(x: Tensor, t: Tensor, condition: Condition, residuals: Any) -> Tensor:
        assert (residuals is None) == (condition.hint is None)
        seen.append(condition)
        return x

    monkeypatch.setattr(model, "run_denoiser", run_denoiser)
    red = picture(tmp_path / "red.png", "red", (32, 32))
    wide = picture(tmp_path / "wide.png", "blue", (90, 45))
    plain = PromptRequest("a", width=64, height=72, steps=2, scale=2.0, seed=1)
    requests = [plain, plain.with_hints((red, wide)), plain.with_hints((wide, red))]
    generate(model, requests, device=torch.device("cpu"), control=control)
    assert len(seen) == 4  # two steps without a hint, two with
    assert [one.progress for one in shown] == [0.0, 0.5]
    hint = shown[0].hint
    assert hint is not None and hint.shape == (4, 6, 72, 64)
    colours = [[0, 0, 1], [1, 0, 0]]
    for row, (first, second) in enumerate([colours[::-1], colours] * 2):
        assert hint[row, :, 5, 5].tolist() == [*first, *second]
    own = shown[0].hint_of(1)
    assert own is not None and own[:, :, 0, 0].tolist() == [*colours, *colours]
    err = capsys.readouterr().err
    assert err.count("wide.png is 90x45 and stretched to the picture's 64x72") == 1
