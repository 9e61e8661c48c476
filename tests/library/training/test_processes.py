"""What the environment and accelerate's command line say about processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from library.launcher import Launcher
from library.problems import UserError
from library.training import processes
from library.training.processes import asked_of_accelerate, check_environment, start_missing_processes

WHOLE = {"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
HALVES = [
    (
        {"WORLD_SIZE": "2"},
        "WORLD_SIZE: says that several processes train together, but there is no LOCAL_RANK, ",
    ),
    (
        {"LOCAL_RANK": "0"},
        "LOCAL_RANK: says that .*, WORLD_SIZE, .* --nproc_per_node 2 x.py .*unset LOCAL_RANK",
    ),
    ({"OMPI_COMM_WORLD_SIZE": "3"}, "mpirun: started 3 processes, .* --nproc_per_node 3 x.py"),
    ({"WORLD_SIZE": "two"}, "WORLD_SIZE: is 'two', which is no number of processes; unset WORLD_SIZE"),
    (WHOLE | {"LOCAL_WORLD_SIZE": "2"}, "LOCAL_WORLD_SIZE: 2 processes, but there is 1 GPU here"),
]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says nothing."""
    for name in (*WHOLE, "LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["x.py"])


def set_all(values: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("values", "said"), HALVES)
def test_what_the_environment_says_by_halves_is_refused(
    values: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(values, monkeypatch)
    monkeypatch.setattr(processes, "gpus", lambda: 1)
    with pytest.raises(UserError, match=said):
        check_environment()


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ({}, 1),
        ({"WORLD_SIZE": "1"}, 1),
        (WHOLE, 2),
        (WHOLE | {"OMPI_COMM_WORLD_SIZE": "4"}, 2),
        ({"OMPI_COMM_WORLD_SIZE": "3", "ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "localhost"}, 3),
    ],
)
def test_what_it_says_in_full_counts(
    values: dict[str, str], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(values, monkeypatch)
    assert check_environment() == count


def test_accelerate_is_asked_by_its_command_line_or_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.commands.config import config_args

    config, unused = tmp_path / "two.yaml", str(tmp_path / "none.yaml")
    kind = "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_CPU\nmixed_precision: 'no'\n"
    config.write_text(kind + "num_processes: 2\nnum_machines: 1\nuse_cpu: true\nmachine_rank: 0\n")

    def asked(words: str, default: str = unused) -> tuple[int, int]:
        monkeypatch.setattr(config_args, "default_config_file", default)
        return asked_of_accelerate(words.split())

    assert asked("--cpu --num_processes 2 x.py --num_processes 5") == (2, 1)
    assert asked("--num_processes=3 --num_machines 2 -m x") == (3, 2)
    assert asked("x.py") == (1, 1)
    assert asked(f"--config_file {config} x.py") == asked("x.py", str(config)) == (2, 1)
    assert asked("--cpu x.py", str(config)) == (1, 1)  # accelerate does not read its own file then


class Replaced(Exception):
    """In the place of a process that becomes another program."""


@pytest.mark.parametrize(
    ("words", "gpus", "said"),
    [
        ("--cpu --num_processes 2 x.py", 0, None),
        ("--num_processes 2 x.py", 0, None),
        ("--num_processes 2 x.py", 1, "has started one only, for there is 1 GPU here"),
        ("--cpu --num_processes 4 --num_machines 2 x.py", 0, "torchrun --nproc_per_node 4 x.py"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="a process cannot become another one")
def test_processes_that_accelerate_did_not_start_are_started_or_refused(
    words: str, gpus: int, said: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def replace(program: str, command: list[str]) -> None:
        raise Replaced(*command)

    launcher = Launcher("accelerate launch", tuple(words.split()), ())
    monkeypatch.setattr(processes, "find_launcher", lambda: launcher)
    monkeypatch.setattr(processes, "gpus", lambda: gpus)
    monkeypatch.setattr(os, "execv", replace)
    monkeypatch.setattr(sys, "orig_argv", ["python", "x.py", "--seed", "3"])
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv("ACCELERATE_USE_CPU", str("--cpu" in words))
    if said is not None:
        with pytest.raises(UserError, match=said):
            start_missing_processes()
        return
    with pytest.raises(Replaced) as replaced:
        start_missing_processes()
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    assert replaced.value.args == (sys.executable, *torchrun, "x.py", "--seed", "3")
    assert os.environ["ACCELERATE_USE_CPU"] == "true" and "MASTER_PORT" not in os.environ
    told = "accelerate launch with 2 processes has started one only: torchrun starts them all, on the CPU\n"
    assert capsys.readouterr().out == told


def test_processes_that_were_started_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = Launcher("accelerate launch", ("--multi_gpu", "--num_processes", "2", "x.py"), ())
    monkeypatch.setattr(processes, "find_launcher", lambda: launcher)
    set_all(WHOLE, monkeypatch)
    start_missing_processes()
    monkeypatch.setattr(processes, "find_launcher", lambda: None)
    monkeypatch.delenv("LOCAL_RANK")
    start_missing_processes()
