"""When previews are due, and prompt files that are edited while a run goes on."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from PIL import Image

from library.data.batch import Needs
from library.options.generation import PreviewOptions
from library.training.watching.preview import Previews


def previews(prompts: Path, hints: bool = False, **options: int) -> Previews:
    """Previews of a run that draw nothing by themselves."""
    run = SimpleNamespace(
        preview=PreviewOptions(sample_prompts=prompts, **cast(Any, options)),
        saving=SimpleNamespace(output_dir=prompts.parent, output_name="x"),
        model=SimpleNamespace(clip_skip=None),
        logging=SimpleNamespace(trackers=(), no_report=True),
    )
    model = SimpleNamespace(is_inpainting=False, family="sd1", latent_space=SimpleNamespace(pixel_multiple=8))
    task = SimpleNamespace(model=model, needs=Needs(hints=hints))
    return Previews(*cast(Any, (run, task, None, None, None)))


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("a cat --d 1\n")
    return path


def edit(path: Path, text: str) -> None:
    """Write a file so that its time is another, whatever the file system's clock."""
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def test_steps_and_epochs_both_act(prompts: Path) -> None:
    shown = previews(prompts, sample_every_n_steps=3, sample_every_n_epochs=2)
    due = [step for step in range(1, 13) if shown.is_due(step, (step + 1) // 2, step % 2 == 0)]
    assert due == [3, 4, 6, 8, 9, 12]


def test_an_edited_file_is_read_again(prompts: Path) -> None:
    shown = previews(prompts, sample_every_n_steps=1)
    edit(prompts, "a dog --d 2\na bird\n")
    shown._read_again()
    assert [request.prompt for request in shown.requests] == ["a dog", "a bird"]


@pytest.mark.parametrize("text", ["\0", "", None])
def test_of_one_that_cannot_be_used_the_old_prompts_stay(
    prompts: Path, text: str | None, capsys: pytest.CaptureFixture
) -> None:
    shown = previews(prompts, sample_every_n_steps=1)
    prompts.unlink() if text is None else edit(prompts, text)
    for _ in range(3):
        shown._read_again()
    assert [request.prompt for request in shown.requests] == ["a cat"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the old prompts are drawn: ")
    assert str(prompts) in line


def test_pictures_beside_prompts_count_where_they_are_looked_at_and_must_be_there(
    prompts: Path, capsys: pytest.CaptureFixture
) -> None:
    Image.new("RGB", (8, 8)).save(prompts.parent / "edges.png")
    edit(prompts, f"a cat --cn {prompts.parent / 'edges.png'}")
    assert previews(prompts).requests[0].hints == ()
    shown = previews(prompts, hints=True)
    assert shown.requests[0].hints == (prompts.parent / "edges.png",)
    edit(prompts, "a dog --cn nowhere.png")
    shown._read_again()
    assert [request.prompt for request in shown.requests] == ["a cat"]
    assert "the old prompts are drawn: nowhere.png: there is no such file" in capsys.readouterr().err


def test_a_picture_that_is_gone_later_costs_its_preview_alone(
    prompts: Path, capsys: pytest.CaptureFixture
) -> None:
    shown = previews(prompts, hints=True)
    gone = shown.requests[0].with_hints((prompts.parent / "gone.png",))
    assert shown._draw_one(0, gone, "000001", print) == []
    assert "a preview is not drawn: " in capsys.readouterr().err
