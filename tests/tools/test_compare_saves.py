"""Grids of a generator, and the saves of a run compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import run_here
from kinds import write_lora
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from library.generation.sheet.differences import compare, difference
from library.generation.sheet.saves import preview_prompts, saves_of
from library.problems import UserError

SMALL = ("--W", 64, "--H", 64, "--steps", 2, "--sampler", "euler", "--seed", 5)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, tiny_model_file: Path) -> Path:
    """A folder with three saves of a network and a preview."""
    folder = tmp_path_factory.mktemp("run")
    for number, name in enumerate(("x-000002", "x-000010", "x")):
        write_lora(folder / f"{name}.safetensors", tiny_model_file, 0.2 * (number + 1))
    texts = PngInfo()
    texts.add_text("prompt", "a red cat")
    texts.add_text("negative-prompt", "blur")
    (folder / "sample").mkdir()
    Image.new("RGB", (64, 64)).save(folder / "sample" / "x_000010_00.png", pnginfo=texts)
    return folder


def test_a_grid_draws_every_cell_as_a_run_of_its_own(
    tiny_model_file: Path, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--ckpt", tiny_model_file, "--prompt", "a cat --l 9", *SMALL)
    grid = (f"weights={run_dir}/x-*.safetensors", "scale=1,4")
    run_here("gen_img.py", *words, "--outdir", tmp_path / "grid", "--xy", ";".join(grid))
    assert "1 grid of 4 cells" in capsys.readouterr().out
    cells = [Image.open(path) for path in sorted((tmp_path / "grid").glob("im_*.png"))]
    assert [cell.text["scale"] for cell in cells] == ["1.0", "4.0", "1.0", "4.0"]
    alone = ("--network_weights", run_dir / "x-000010.safetensors", "--outdir", tmp_path / "alone")
    run_here("gen_img.py", "--ckpt", tiny_model_file, "--prompt", "a cat --l 4", *SMALL, *alone)
    (own,) = (tmp_path / "alone").glob("im_*.png")
    assert Image.open(own).tobytes() == cells[3].tobytes() != cells[1].tobytes()
    (sheet,) = (tmp_path / "grid").glob("grid_*.png")
    assert Image.open(sheet).width > 2 * 64
    page = (tmp_path / "grid" / "index.html").read_text(encoding="utf-8")
    assert page.count(sheet.name) == 2
    assert "weights x-000010" in page
    assert not (tmp_path / "alone" / "index.html").exists()  # a single picture needs no page


@pytest.mark.parametrize(
    ("axes", "line"),
    [
        ("scale=1,many", "--xy scale=many: expects a number"),
        ("clip_skip=0,2", "--clip_skip"),
        ("weights=none.safetensors", "none.safetensors: there is no such file of network weights"),
        ("W=64,65", "--xy W=65: expects a size in pixels, a multiple of 8"),
    ],
)
def test_nothing_is_drawn_where_a_cell_is_wrong(
    axes: str, line: str, tiny_model_file: Path, tmp_path: Path
) -> None:
    words = ("--ckpt", tiny_model_file, "--prompt", "a cat", *SMALL, "--outdir", tmp_path / "out")
    if axes.startswith("clip_skip"):  # 0 is as if it were not given
        axes = "clip_skip=-1,2"
    with pytest.raises(UserError) as raised:
        run_here("gen_img.py", *words, "--xy", axes)
    assert line in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_grid_needs_prompts_that_are_known_before_the_start(tiny_model_file: Path, tmp_path: Path) -> None:
    words = ("--ckpt", tiny_model_file, "--interactive", "--outdir", tmp_path / "out", "--xy", "scale=1,2")
    with pytest.raises(UserError, match="--xy: needs prompts that are known before the start"):
        run_here("gen_img.py", *words)


def test_saves_are_compared_with_the_model_they_began_with(
    tiny_model_file: Path, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (run_dir, "--ckpt", tiny_model_file, *SMALL, "--images_per_prompt", 2, "--strengths", "0.5", "1")
    run_here("tools.compare_saves", *words)
    out = run_dir / "saves"
    assert (out / "prompts.txt").read_text() == "a red cat --n blur\n"
    assert len(list(out.glob("grid_*.png"))) == 2  # of one prompt and two seeds
    assert len(list(out.glob("im_*.png"))) == 2 * 2 * 4
    page = (out / "index.html").read_text(encoding="utf-8")
    rows = page[page.index("<tbody>") : page.index("</tbody>")]
    assert [rows.index(name) for name in ("x-000002", "x-000010", ">x<")] == sorted(
        rows.index(name) for name in ("x-000002", "x-000010", ">x<")
    )
    assert "has no effect" not in capsys.readouterr().err


def test_saves_are_found_in_order_and_runs_told_apart(run_dir: Path, tmp_path: Path) -> None:
    paths, are_models = saves_of(run_dir, None)
    assert [path.stem for path in paths] == ["x-000002", "x-000010", "x"]
    assert not are_models
    assert preview_prompts(run_dir) == ["a red cat --n blur"]
    for name in ("a", "b-000001"):
        (tmp_path / f"{name}.safetensors").write_bytes((run_dir / "x.safetensors").read_bytes())
    with pytest.raises(UserError, match="holds saves of 2 runs; choose --name: a, b"):
        saves_of(tmp_path, None)
    with pytest.raises(UserError, match="holds no saves of c; there are a, b"):
        saves_of(tmp_path, "c")
    assert [path.stem for path in saves_of(tmp_path, "b")[0]] == ["b-000001"]


def test_differences_are_those_of_pictures() -> None:
    black, white, grey = (Image.new("RGB", (64, 64), (value,) * 3) for value in (0, 255, 51))
    assert difference(black, white) == 1
    assert difference(black, grey) == pytest.approx(0.2)
    first, second = compare([[black, white]], [("a", [[black, black]]), ("b", [[black, white]])])
    assert (first.from_base, first.from_last, first.variety) == (0.5, None, 0)
    assert (second.from_base, second.from_last, second.variety) == (0, 0.5, 1)
