"""What starts a program, and what happens when that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from library.launcher import find_launcher, read_command

ROOT = Path(__file__).parents[2]

COMMANDS = [
    ("python /venv/bin/accelerate launch --cpu x.py", ("accelerate launch", "--cpu x.py")),
    ("/venv/bin/accelerate launch x.py", ("accelerate launch", "x.py")),
    (
        "C:\\venv\\Scripts\\python.exe C:\\venv\\Scripts\\accelerate.exe launch x.py",
        ("accelerate launch", "x.py"),
    ),
    ("python -u -m accelerate.commands.launch x.py", ("accelerate launch", "x.py")),
    ("/venv/bin/accelerate-launch x.py", ("accelerate launch", "x.py")),
    ("python /venv/bin/torchrun --nproc_per_node=2 x.py", ("torchrun", "--nproc_per_node=2 x.py")),
    ("python -m torch.distributed.run x.py", ("torchrun", "x.py")),
    ("python /venv/bin/accelerate config", None),
    ("python x.py accelerate launch", None),
    ("bash -c accelerate", None),
    ("sudo accelerate launch x.py", None),
    ("python -m pytest", None),
    ("-bash", None),
    ("", None),
]


@pytest.mark.parametrize(("command", "found"), COMMANDS)
def test_launchers_are_known_by_their_command_line(command: str, found: tuple[str, str] | None) -> None:
    read = read_command(command.replace("\\\\", "\\").split())
    assert read == (found and (found[0], tuple(found[1].split())))


def test_a_shell_or_test_runner_is_no_launcher() -> None:
    assert find_launcher() is None


LAUNCH = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[2:]])"
WORK = """
import time
from library.problems import run_command
def main():
    print("begun", flush=True)
    time.sleep(30)
    print("worked on", flush=True)
run_command(main, unfinished="nothing to save")
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(("name", "ends"), [("accelerate", True), ("wrapper", False)])
def test_a_program_ends_with_its_launcher_alone(name: str, ends: bool, tmp_path: Path) -> None:
    """The parent is killed, once as accelerate launch and once as any other program: what `nohup`, `setsid`
    and services start keeps running when its parent is gone.
    """
    parent, child = tmp_path / name, tmp_path / "work.py"
    parent.write_text(LAUNCH)
    child.write_text(WORK)
    said = tmp_path / "said"
    with said.open("w") as out:
        command = [sys.executable, str(parent), "launch", str(child)]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        started = subprocess.Popen(
            command, stdout=out, stderr=out, cwd=tmp_path, env=env, start_new_session=True
        )
    try:
        _wait_for("begun", said, 30)
        time.sleep(1)
        started.kill()
        started.wait()
        if ends:
            _wait_for("stopped: nothing to save", said, 10)
            line = f"warning: accelerate launch (process {started.pid}) has ended, so this run stops too"
            assert said.read_text().splitlines()[1] == line
        else:
            time.sleep(2)
            assert said.read_text() == "begun\n"
    finally:
        try:
            os.killpg(started.pid, signal.SIGKILL)
        except ProcessLookupError:
            assert ends


def _wait_for(text: str, file: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while text not in file.read_text():
        assert time.monotonic() < end, file.read_text()
        time.sleep(0.1)


ECHO = """
import signal, sys, time
from library import launcher, stopping
from library.problems import run_command
class Torchrun:
    kind, pid = "torchrun", 1
    is_gone = staticmethod(lambda: False)
if sys.argv[1] == "torchrun":
    stopping.find_launcher = Torchrun
def main():
    try:
        signal.raise_signal(signal.SIGINT)
    except BaseException:
        signal.raise_signal(signal.SIGINT)
        print("saved")
        raise
run_command(main)
"""


@pytest.mark.parametrize(("parent", "printed"), [("torchrun", "saved\n"), ("shell", "")])
def test_a_signal_that_a_launcher_passes_on_counts_once(parent: str, printed: str) -> None:
    command = [sys.executable, "-c", ECHO, parent]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, printed)
