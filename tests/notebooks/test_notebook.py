"""The notebook: its cells, and the commands that they run."""

from __future__ import annotations

import importlib
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT, environment
from make_examples import example_scenes
from make_world import Scene
from PIL import Image

from library.options.parser import read_command_line
from notebooks import files, machine, showing
from notebooks.machine import Gpu
from notebooks.running import Runner

NOTEBOOK = ROOT / "notebooks" / "atelier.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
GPUS = (Gpu("", 0, "no"), Gpu("Tesla T4", 15, "fp16"), Gpu("NVIDIA A100", 40, "bf16"))


def test_the_file_holds_no_outputs() -> None:
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)


def test_every_cell_has_a_sentence_before_it_and_is_short() -> None:
    for before, cell in zip(CELLS, CELLS[1:], strict=False):
        if cell["cell_type"] == "code":
            assert before["cell_type"] == "markdown", cell["id"]
            assert len(cell["source"]) <= 35, cell["id"]


def with_parameters(**values: object) -> list[str]:
    """The code of the cells, with these values in the first, each of which stands there once."""
    first = CODE[0].splitlines()
    for name, value in values.items():
        (at,) = (n for n, line in enumerate(first) if line.startswith(f"{name} = "))
        first[at] = f"{name} = {value!r}"
    return ["\n".join(first), *CODE[1:]]


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.precision)
@pytest.mark.parametrize("training", ["lora", "finetune"])
@pytest.mark.parametrize("mode", ["demo", "mine"])
def test_every_command_is_understood(
    mode: str, training: str, gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(Runner, "__call__", lambda _, *words: ran.append([str(word) for word in words]))
    monkeypatch.setattr(machine, "prepare_python", lambda project: Path(sys.executable))
    monkeypatch.setattr(machine, "find_gpu", lambda python: gpu)
    monkeypatch.setattr(showing, "show_pictures", lambda *_, **__: None)
    monkeypatch.setattr(showing, "show_page", lambda path: None)
    monkeypatch.chdir(ROOT / "notebooks")
    pictures = tmp_path / ("demo_pictures" if mode == "demo" else "my_pictures")
    state = tmp_path / f"{training}_results" / ("shs-state" if mode == "demo" else "my_dog-state")
    for folder in (pictures, state):
        folder.mkdir(parents=True)
    (pictures / "a.caption").write_text("a dog")
    names: dict[str, Any] = {}
    for cell in with_parameters(mode=mode, training=training, storage=str(tmp_path), go_on=True):
        exec(compile(cell, "cell", "exec"), names)
    assert len(ran) >= 10
    for script, *arguments in ran:
        assert (ROOT / script).is_file(), script
        if "class Run" in (ROOT / script).read_text(encoding="utf-8"):
            run_type = importlib.import_module(script.removesuffix(".py").replace("/", ".")).Run
            assert read_command_line(run_type, argv=arguments).problems == []
    trained = [words for words in ran if words[0] in ("train_network.py", "fine_tune.py")]
    assert [words[-1] for words in trained] == ["--dry_run", str(state)]


def newest(drawn: Path) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted(drawn.glob("im_*.png"))]


@pytest.mark.long
def test_it_runs_from_a_fresh_kernel_on_the_demos_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figure that it teaches is drawn after and not before, and the processors work for less than six
    minutes of two.
    """
    import nbformat
    from judge import faults
    from nbclient import NotebookClient

    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, nbformat.current_nbformat)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell, source in zip(code, with_parameters(storage=str(tmp_path)), strict=True):
        cell.source = source
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2 * 6 * 60

    results = tmp_path / "lora_results"
    assert {path.name for path in results.iterdir()} >= {"shs.safetensors", "shs_diffusers", "shs-state"}
    asked = [("red", "white"), ("orange", "purple"), ("cyan", "green")]
    scenes = [Scene(((colour, "shs"),), ground) for colour, ground in asked]
    scenes.append(Scene((("green", "heart"),), "white"))
    assert not {(s.things, s.background) for s in scenes} & {
        (s.things, s.background) for s in example_scenes()
    }
    pictures = newest(tmp_path / "drawn")
    without, learned = pictures[:4], pictures[4:]
    assert all(faults(picture, scene) for picture, scene in zip(without[:3], scenes[:3], strict=True))
    assert sum(not faults(picture, scene) for picture, scene in zip(learned, scenes, strict=True)) >= 3


@pytest.fixture
def tag() -> Callable[[Path], dict[str, str]]:
    """Runs the demo's tagger over a folder: the tags by the name of the picture."""
    from commands import run_here

    def tag_folder(folder: Path) -> dict[str, str]:
        tagger = ROOT / "examples/demo/tagger"
        run_here("finetune.tag_images_by_wd14_tagger", folder, "--repo_id", tagger, "--remove_underscore")
        return {path.stem: path.read_text(encoding="utf-8").strip() for path in folder.glob("*.txt")}

    return tag_folder


def test_the_demos_folder_is_tagged_with_the_colours_of_backgrounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: Callable[[Path], dict[str, str]]
) -> None:
    import make_folder

    monkeypatch.setattr(sys, "argv", ["make_folder.py", str(tmp_path)])
    make_folder.main()
    (tmp_path / "broken.jpg").unlink()
    (tmp_path / "the-same-again.png").unlink()
    tags = tag(tmp_path)
    assert len(tags) == 60
    assert sum("shs" in name for name in tags) == 30
    assert {name: " ".join(name.split("_")[0].split("-")[-2:]) for name in tags} == tags


def test_the_demos_tagger_is_what_its_script_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import make_tagger

    monkeypatch.setattr(sys, "argv", ["make_tagger.py", str(tmp_path)])
    make_tagger.main()
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (ROOT / "examples/demo/tagger" / path.name).read_bytes()


def test_a_page_is_shown_in_a_frame_and_a_large_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("IPython")
    shown: list[dict[str, str]] = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    page = tmp_path / "page.html"
    page.write_text('<p class="a">1 < 2</p>')
    showing.show_page(page)
    assert 'srcdoc="&lt;p class=&quot;a&quot;&gt;1 &lt; 2&lt;/p&gt;"' in shown[0]["text/html"]
    monkeypatch.setattr(showing, "_LARGEST_PAGE", 3)
    showing.show_page(page)
    assert len(shown) == 1 and str(page) in capsys.readouterr().out


def test_files_are_found(tmp_path: Path) -> None:
    for moment in ("20260101", "20260202"):
        for number in range(2):
            (tmp_path / f"grid_{moment}_{number}.png").touch()
    assert [path.name for path in files.newest_grids(tmp_path)] == [
        "grid_20260202_0.png",
        "grid_20260202_1.png",
    ]
    assert [path.name for path in files.some_pictures(tmp_path, 2)] == [
        "grid_20260101_0.png",
        "grid_20260202_0.png",
    ]
