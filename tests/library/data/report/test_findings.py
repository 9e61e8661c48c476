"""Pictures of which not everything is trained, on the console and on the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from library.data.report.findings import Finding, all_findings
from library.data.report.inspection import Inspection, inspect_pictures
from library.data.report.texts import Look
from library.data.report.writing import say_in_short, write_page
from library.data.summary import summary_lines
from library.data.training_data import TrainingData

LOOK = Look(
    seed=0,
    token_ends=lambda captions: [[] for _ in captions],
    max_tokens=75,
    total_steps=1,
    steps_per_epoch=1,
)
WHITE = "with transparent parts, which are trained as white"
FIRST = "with several frames, of which only the first is trained"


def clear_picture(path: Path) -> None:
    """Half of it transparent."""
    image = Image.new("RGBA", (64, 64), "red")
    image.paste((0, 0, 0, 0), (0, 0, 32, 64))
    image.save(path)


def inspected(data: TrainingData) -> Inspection:
    return inspect_pictures([record.image for record in data.records])


@pytest.fixture
def data(save_image, scan) -> TrainingData:
    """Two pictures with transparent parts, an animation, and a picture like any other."""
    clear_picture(save_image("train/1_x/clear.png", caption="a"))
    clear_picture(save_image("train/1_x/clear too.png", caption="b"))
    film = save_image("train/1_x/film.webp", caption="c")
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("blue", "yellow")]
    frames[0].save(film, save_all=True, append_images=frames[1:])
    save_image("train/1_x/plain.png", caption="d")
    return scan()


def test_transparent_parts_and_further_frames_are_listed(data: TrainingData) -> None:
    assert all_findings(data, inspected(data)) == [
        Finding(WHITE, (("1_x/clear too.png", ""), ("1_x/clear.png", "")), is_warning=True),
        Finding(FIRST, (("1_x/film.webp", ""),)),  # the scan warns of it,
    ]
    assert all_findings(data) == []  # nobody has looked


def test_they_are_a_warning_each_on_the_console_and_on_the_page(
    data: TrainingData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    say_in_short(page, data, write_page(page, data, LOOK, title="x", inspection=inspected(data)))
    folder = data.datasets[0].spec.subsets[0].source
    film = f"{folder}: 1 image has several frames or pages, of which the first is trained: film.webp"
    warning, copies = f"2 pictures {WHITE}", "1 picture looks like another one"
    assert capsys.readouterr().out.splitlines() == [
        *summary_lines(data),
        *(f"warning: {line}" for line in [film, warning, copies]),
        f"wrote {page}",
    ]
    html = page.read_text(encoding="utf-8")
    assert f'<li class="warn">{warning}</li>' in html and f"<summary>{warning}</summary>" in html
    assert f"<summary>1 picture {FIRST}</summary>" in html


def test_transparent_parts_that_are_a_mask_are_listed_and_no_warning(
    save_image, scan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clear_picture(save_image("train/1_x/clear.png", caption="a"))
    data = scan(alpha_mask=True)
    (finding,) = all_findings(data, inspected(data))
    assert finding == Finding(
        "with transparent parts, which do not count in the loss", (("1_x/clear.png", ""),)
    )
    page = tmp_path / "page.html"
    say_in_short(page, data, write_page(page, data, LOOK, title="x", inspection=inspected(data)))
    assert "warning" not in capsys.readouterr().out


def test_beside_a_conditioning_image_they_are_no_mask(save_image, scan, tmp_path: Path) -> None:
    clear_picture(save_image("train/1_x/clear.png", caption="a"))
    save_image("masks/clear.png")
    data = scan(alpha_mask=True, masked_loss=True, conditioning_data_dir=tmp_path / "masks")
    assert [finding.text for finding in all_findings(data, inspected(data))] == [WHITE]


def test_a_link_to_nothing_is_listed_like_the_file_it_looks_like(save_image, scan, tmp_path: Path) -> None:
    save_image("train/1_x/a.png", caption="a")
    data = scan()
    try:
        (tmp_path / "train/1_x/b.caption").symlink_to(tmp_path / "nowhere")
    except OSError:
        pytest.skip("this system does not let us make links")
    assert all_findings(data) == [Finding("without a picture", (("1_x/b.caption", ""),), "caption file")]
