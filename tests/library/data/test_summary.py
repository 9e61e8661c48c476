"""What the console says of a dataset, of one thing and of several."""

from __future__ import annotations

from pathlib import Path

import pytest

from library.data.buckets import Fit
from library.data.scan.records import Record
from library.data.summary import odd_shapes, summary_lines, warning_lines


@pytest.mark.parametrize(
    ("repeats", "last"),
    [
        (1, "  1 training sample and 1 regularization sample per epoch"),
        (2, "  2 training samples and 2 regularization samples per epoch"),
    ],
)
def test_samples_are_counted_in_words(save_image, scan, tmp_path: Path, repeats: int, last: str) -> None:
    save_image(f"train/{repeats}_cat/a.png", caption="a")
    for name in "abc":
        save_image(f"reg/1_cat/{name}.png", caption=name)
    data = scan(reg_data_dir=tmp_path / "reg")
    assert summary_lines(data)[1:] == [
        f'  {tmp_path}/train/{repeats}_cat: 1 image x {repeats}, "cat"',
        f'  {tmp_path}/reg/1_cat: 3 regularization images x 1, "cat"',
        last,
    ]
    assert warning_lines(data) == [
        "2 regularization samples are not used: there is only 1 training sample"
        if repeats == 1
        else "1 regularization sample is not used: there are only 2 training samples"
    ]


def test_one_held_out_image_is_one(save_image, scan) -> None:
    for name in "abcd":
        save_image(f"train/1_x/{name}.png", caption=name)
    assert summary_lines(scan(validation_split=0.25))[-1] == "  1 image is held out for validation"


def test_one_file_left_out_is_one(save_image, scan, tmp_path: Path) -> None:
    folder = tmp_path / "train/1_x"
    save_image("train/1_x/a.png", caption="")
    save_image("train/1_x/inside/b.png")
    for name in ("c.gif", "d.caption"):
        (folder / name).touch()
    (folder / "e.png").touch()
    warnings = warning_lines(scan(on_bad_image="skip"))
    assert warnings == [
        f"{folder}: 1 bad image is left out: {folder / 'e.png'} is empty (0 bytes)",
        f"{folder}: 1 caption is empty",
        f"{folder}: 1 .caption file belongs to no image: d.caption",
        f"{folder}: 1 file of a kind that is not read (.gif) is left out: c.gif; convert it to PNG or JPEG to"
        " use it",
        f"{folder}: 1 image in a folder inside it is not used (inside); a folder with images needs a subset"
        " of its own",
    ]


def test_odd_shapes_are_told_with_the_worst_first(subset) -> None:
    def record(name: str, size: tuple[int, int], fit: Fit) -> Record:
        return Record(Path(name), "", size, fit, subset, 1)

    subset = subset()
    square = Fit((64, 64), (64, 64))
    records = [
        record("plain.png", (64, 64), square),
        record("four times.png", (256, 64), Fit((256, 64), (256, 64))),
        record("thin.png", (300, 60), Fit((300, 60), (300, 60))),
        record("thinner.png", (20, 200), Fit((20, 200), (20, 200))),
        record("tiny.png", (16, 16), square),
        record("half.png", (128, 64), Fit((64, 64), (128, 64))),
        record("cut.png", (256, 64), Fit((64, 64), (256, 64))),
    ]
    odd = odd_shapes(records)
    assert {kind: [(r.image.name, words) for r, words in found] for kind, found in odd.items()} == {
        "more than four times as long as wide": [
            ("thinner.png", "20x200, 10.0 to 1"),
            ("thin.png", "300x60, 5.0 to 1"),
        ],
        "enlarged more than three times": [("tiny.png", "16x16, 4.0 times")],
        "cropped by more than half": [("cut.png", "256x64 in 64x64, 75% lost")],
    }
    assert odd_shapes(records[:2]) == {}
