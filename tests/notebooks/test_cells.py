"""What the notebook's cells call: places, Pythons, commands."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from notebooks.failure import CellStopped
from notebooks.files import find_pictures, latest_state
from notebooks.machine import NEEDED, find_gpu, find_place, missing, prepare_python
from notebooks.running import Runner, as_typed

ROOT = Path(__file__).parents[2]


def runner(folder: Path, code: str) -> Runner:
    """Runs a script `command.py` of this code."""
    (folder / "command.py").write_text(code)
    return Runner(folder, Path(sys.executable))


def test_a_command_is_printed_and_what_it_says_follows(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "import sys; print(sys.argv[1:]); print('é', file=sys.stderr)"
    runner(tmp_path, code)("command.py", tmp_path / "a b", "--steps", 3)
    said = capfd.readouterr()
    words = f"'{tmp_path}/a b' --steps 3"
    unbroken = said.out.replace(" \\\n    ", " ")  # long lines break before options
    assert unbroken == f"$ python command.py {words}\n['{tmp_path}/a b', '--steps', '3']\né\n"
    assert said.err == ""


def test_a_command_that_fails_ends_the_cell_with_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = runner(tmp_path, "import sys; print('a.png: is empty; remove it', file=sys.stderr); sys.exit(2)")
    with pytest.raises(CellStopped) as stopped:
        run("command.py")
    assert capfd.readouterr().out.endswith("a.png: is empty; remove it\n")
    (shown,) = stopped.value._render_traceback_()
    assert shown.startswith("command.py ended with exit code 2, for the reason above.")


def test_states_of_a_bar_replace_one_another(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = ["steps:   0%|  | 0/9", "steps:  50%|# | 4/9", "a line", "steps: 100%|##| 9/9", "done"]
    runner(tmp_path, f"print(*{lines!r}, sep='\\n')")("command.py")
    shown = [
        line.rsplit("\r", 1)[-1].rstrip()
        for line in capfd.readouterr().out.split("$ python command.py\n")[1].split("\n")
    ]
    assert shown == [*lines[1:], ""]


def test_a_long_command_breaks_before_options() -> None:
    words = ["python", "train.py", "my pictures", *(f"--option_{n}" for n in range(12)), "1,2"]
    text = as_typed(words)
    assert len(text.splitlines()) > 1 and max(map(len, text.splitlines())) <= 100
    echoed = subprocess.run(["bash", "-c", f"printf '%s\\n' {text}"], capture_output=True, text=True)
    assert echoed.stdout.splitlines() == words


def test_a_cell_that_is_stopped_waits_for_what_the_command_saves(tmp_path: Path) -> None:
    """Both hear of it, as in a kernel: they are one group of processes."""
    (tmp_path / "command.py").write_text(
        "import sys, time\ntry:\n    print('working', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(0.2); print('saved', flush=True); sys.exit(130)\n"
    )
    code = (
        "import signal, sys; from pathlib import Path; from notebooks.running import Runner\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # jobs in the background ignore it
        f"Runner(Path({str(tmp_path)!r}), Path(sys.executable))('command.py')"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    cell = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, text=True, start_new_session=True, **pipes
    )
    assert cell.stdout is not None
    while cell.stdout.readline().strip() != "$ python command.py":
        pass
    assert cell.stdout.read(len("working")) == "working"
    os.killpg(cell.pid, signal.SIGINT)
    out, err = cell.communicate(timeout=60)
    assert "stopping" in out and out.endswith("saved\n")
    assert err.strip().endswith("command.py was stopped; the lines above say what it saved.")


@pytest.mark.parametrize(
    ("env", "use_drive", "said"),
    [
        ({}, True, "this machine; files go to {project}/outputs/notebook"),
        ({"RUNPOD_POD_ID": "a"}, True, "RunPod; files go to {storage}"),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, True, "Kaggle; files go to {storage}"),
        ({"COLAB_RELEASE_TAG": "a"}, False, "Colab; files go to {storage}"),
    ],
)
def test_the_place_is_known_by_its_variables(
    env: dict[str, str], use_drive: bool, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = tmp_path / "files"
    place = find_place(tmp_path, use_drive=use_drive, storage=str(storage) if env else "", env=env)
    assert place.storage.is_dir()
    assert capsys.readouterr().out == said.format(project=tmp_path, storage=storage) + "\n"


def test_drive_is_mounted_on_colab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted = []

    class Drive:
        mount = staticmethod(mounted.append)

    monkeypatch.setattr("notebooks.machine.import_module", lambda name: {"google.colab.drive": Drive}[name])
    find_place(tmp_path, use_drive=True, storage=str(tmp_path), env={"COLAB_RELEASE_TAG": "a"})
    assert mounted == ["/content/drive"]


def test_the_projects_own_python_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / ".venv" / "bin"
    own.mkdir(parents=True)
    (own / "python").symlink_to(sys.executable)
    here = Path(sys.prefix)
    shutil.copy(here / "pyvenv.cfg", tmp_path / ".venv") if (here / "pyvenv.cfg").exists() else None
    (tmp_path / ".venv" / "lib").symlink_to(here / "lib")
    assert prepare_python(tmp_path) == own / "python"
    assert capsys.readouterr().out == f"{own / 'python'} has all packages\n"


def test_a_python_without_packages_lacks_all(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    assert missing(tmp_path / "bare" / "bin" / "python") == list(NEEDED)


def test_a_new_environment_is_made_over_the_machines_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The environment is real, what would be installed is not."""

    def follow(command: list[str], folder: Path) -> int:
        done.append(command[1:])
        return 0 if "install" in command else subprocess.run(command).returncode

    done: list[list[str]] = []
    monkeypatch.setattr("notebooks.machine.missing", lambda python: ["torch"])
    monkeypatch.setattr("notebooks.machine.follow", follow)
    python = prepare_python(tmp_path)
    assert subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0
    assert "include-system-site-packages = true" in (tmp_path / ".venv" / "pyvenv.cfg").read_text()
    assert done[-1] == ["-m", "pip", "install", "--quiet", "--editable", f"{tmp_path}[tagging]"]
    monkeypatch.setattr("notebooks.machine.follow", lambda command, folder: 1)
    with pytest.raises(CellStopped, match="could not be installed"):
        prepare_python(tmp_path)


def test_without_a_gpu_the_cpu_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    gpu = find_gpu(Path(sys.executable))
    assert (gpu.name, gpu.precision) == ("", "no") or gpu.name == "Apple GPU"
    assert capsys.readouterr().out.startswith(("no GPU: the CPU, in float32", "Apple GPU"))


def test_a_zip_file_is_unpacked_once(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.png").touch()
    shutil.make_archive(str(tmp_path / "pictures"), "zip", tmp_path / "mine")
    folder = find_pictures(tmp_path / "pictures.zip")
    assert [path.name for path in folder.iterdir()] == ["a.png"]
    (folder / "a.png").unlink()
    assert list(find_pictures(tmp_path / "pictures.zip").iterdir()) == []
    with pytest.raises(CellStopped, match=r"nowhere is not there: put a folder"):
        find_pictures(tmp_path / "nowhere")


def test_the_newest_state_is_gone_on_from(tmp_path: Path) -> None:
    with pytest.raises(CellStopped, match="has no state of my_dog"):
        latest_state(tmp_path, "my_dog")
    for age, name in enumerate(("my_dog-state", "my_dog-step00000500-state", "other-state")):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    assert latest_state(tmp_path, "my_dog").name == "my_dog-state"
