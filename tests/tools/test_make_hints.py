"""Hints of pictures, and the pictures' names that they are found by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import call
from PIL import Image

from library.problems import UserError
from tools import canny, make_hints


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two pictures of a white square on red, the second in a folder in the folder, with transparency."""
    inner = tmp_path / "pictures" / "1_cat"
    inner.mkdir(parents=True)
    square = np.zeros((48, 64, 4), np.uint8)
    square[..., 0], square[..., 3] = 255, 255
    square[12:36, 16:48, :3] = 255
    Image.fromarray(square[..., :3]).save(tmp_path / "pictures" / "a.jpg", quality=100, subsampling=0)
    square[:12, :, 3] = 0
    Image.fromarray(square).save(inner / "b.png")
    (inner / "b.txt").write_text("a caption")
    return tmp_path / "pictures"


def hints(pictures: Path, kind: str, *more: object) -> dict[str, np.ndarray]:
    out = pictures.parent / kind
    call(make_hints.main, "make_hints.py", pictures, out, "--kind", kind, *more)
    return {path.name: np.asarray(Image.open(path)) for path in sorted(out.iterdir())}


def test_each_kind_shows_its_part_of_the_picture(pictures: Path) -> None:
    for kind in ("canny", "line", "blur", "downscale", "grey"):
        made = hints(pictures, kind)
        assert {name: hint.shape for name, hint in made.items()} == {
            "a.png": (48, 64, 3),
            "b.png": (48, 64, 3),
        }
    edges = hints(pictures, "canny", "--overwrite")["a.png"]
    assert set(np.unique(edges)) == {0, 255}
    rows, columns = np.nonzero(edges[..., 0])
    assert 10 <= rows.min() <= 12 and 35 <= rows.max() <= 37 and 14 <= columns.min() <= 16
    assert not edges[18:30, 22:42].any() and not edges[:8].any()
    assert not hints(pictures, "canny", "--low", 1000, "--high", 1100, "--overwrite")["a.png"].any()
    soft = hints(pictures, "line")["a.png"][..., 0]
    assert soft[24, 16] > 200 and soft[24, 32] < 10 and soft[24, 4] < 10
    blur = hints(pictures, "blur", "--radius", 4, "--overwrite")["a.png"].astype(int)
    assert 80 < blur[24, 16, 1] < 180 and blur[24, 32, 1] > 240
    small = hints(pictures, "downscale", "--factor", 16, "--overwrite")["a.png"].astype(int)
    assert np.abs(np.diff(small[24, :, 1])).max() < 40  # no edge is sharp
    grey = hints(pictures, "grey")["a.png"]
    assert abs(int(grey[2, 2, 0]) - 76) <= 2 and (grey[..., 0] == grey[..., 2]).all()  # red's brightness


def test_masks_need_transparency_and_the_good_ones_are_kept(pictures: Path) -> None:
    with pytest.raises(UserError, match="a.jpg: has no transparent part to make a mask of"):
        hints(pictures, "mask")
    mask = np.asarray(Image.open(pictures.parent / "mask" / "b.png"))
    assert mask[5, 5].tolist() == [0, 0, 0] and mask[20, 5].tolist() == [255, 255, 255]


def test_hints_that_are_there_stay_and_names_must_differ(
    pictures: Path, capsys: pytest.CaptureFixture
) -> None:
    out = pictures.parent / "canny"
    out.mkdir()
    Image.new("RGB", (1, 1)).save(out / "a.png")
    assert hints(pictures, "canny", "--radius", 3)["a.png"].shape == (1, 1, 3)
    told = capsys.readouterr()
    assert told.out == f"1 hint in {out}; 1 was there already\n"
    assert "--radius has no effect" in told.err
    assert hints(pictures, "canny", "--overwrite")["a.png"].shape == (48, 64, 3)
    (pictures / "1_cat" / "a.png").write_bytes((pictures / "1_cat" / "b.png").read_bytes())
    with pytest.raises(UserError, match="a.png: is called as .*a.jpg; rename one"):
        hints(pictures, "canny")


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        (("no", "out"), "<pictures> no: there is no such folder"),
        (("empty", "out"), "empty: holds no pictures"),
        (("empty", "empty"), "<hints>: is the folder of the pictures"),
        (("empty",), "<hints>: is needed"),
        (("empty", "out", "--low", 200), "--high: must not be below --low"),
        (("empty", "out", "--kind", "depth"), "--kind: expects one of canny, line"),
    ],
)
def test_what_is_wrong_is_told(
    more: tuple, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=cause):
        call(make_hints.main, "make_hints.py", *more)


def test_canny_writes_a_grey_picture_of_edges(pictures: Path, tmp_path: Path) -> None:
    words = ("--input", pictures / "a.jpg", "--output", tmp_path / "edges.png")
    call(canny.main, "canny.py", *words)
    edges = Image.open(tmp_path / "edges.png")
    assert edges.mode == "L" and np.asarray(edges).any()
    call(canny.main, "canny.py", *words, "--thres1", 3000, "--thres2", 3000)
    assert not np.asarray(Image.open(tmp_path / "edges.png")).any()
    with pytest.raises(UserError, match="--output: must end in one of .png"):
        call(canny.main, "canny.py", "--input", pictures / "a.jpg", "--output", tmp_path / "edges")
