"""Several processes are one run: as many as were asked for, on GPUs or on the CPU (gloo)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from library.console import say
from library.launcher import find_launcher
from library.problems import UserError

# What torchrun and accelerate launch tell each process; torch needs all of it.
_NEEDED = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Where mpirun says how many processes it started.
_OF_MPI = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_DOCS = "see docs/many_devices.md"


def start_missing_processes() -> None:
    """Where accelerate launch was asked for several processes and started this one only, as it does without
    GPUs and with --cpu, this process becomes torchrun, which starts them all. Raises UserError where that
    cannot be done.
    """
    launcher = find_launcher()
    if launcher is None or launcher.kind != "accelerate launch" or _is_told_its_rank():
        return
    processes, machines = asked_of_accelerate(launcher.words)
    if processes < 2:
        return
    where = f"accelerate launch with {processes} processes"
    if not (wants_cpu() or gpus() == 0):
        cause = f"has started one only, for there {_are(gpus())} here"
        raise UserError.of(where, cause, "ask for as many as there are GPUs, or give it --cpu as well")
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    if machines > 1 or os.name == "nt":
        cause = "has started one only: it knows several on GPUs alone"
        fix = f"on CPUs: torchrun --nproc_per_node {processes} {Path(sys.argv[0]).name} ...; {_DOCS}"
        raise UserError.of(where, cause, fix)
    say(f"{where} has started one only: torchrun starts them all, on the CPU")
    sys.stdout.flush()
    os.environ["ACCELERATE_USE_CPU"] = "true"
    for name in ("MASTER_ADDR", "MASTER_PORT"):  # of a launch that did not happen
        os.environ.pop(name, None)
    # orig_argv: the parser has taken tokens out of argv.
    os.execv(sys.executable, [sys.executable, *command, *sys.orig_argv[1:]])


def is_main_process() -> bool:
    """Whether this is the run's first process, over all machines: the one that writes."""
    return os.environ.get("RANK", "0") == "0"


def asked_of_accelerate(words: Sequence[str]) -> tuple[int, int]:
    """How many processes and machines a command line of accelerate launch asks for, in the words that follow
    `launch` or in accelerate's config file.
    """
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    asked = launch_command_parser().parse_args(list(words))
    processes, machines = asked.num_processes, asked.num_machines
    if asked.config_file is not None or (Path(default_config_file).is_file() and not asked.cpu):
        config = load_config_from_file(asked.config_file)
        processes = processes or getattr(config, "num_processes", 1)
        machines = machines or getattr(config, "num_machines", 1)
    return processes or 1, machines or 1


def check_environment() -> int:
    """How many processes the environment says that this run has; 1 if it says nothing. Raises UserError where
    it says so only by halves, for then each process would train alone and write the others' files.
    """
    count, by_mpi = _number("WORLD_SIZE"), max(map(_number, _OF_MPI))
    missing = [name for name in _NEEDED if name not in os.environ]
    if _is_told_its_rank() or count > 1:
        if missing:
            given = "LOCAL_RANK" if _is_told_its_rank() else "WORLD_SIZE"
            cause = f"says that several processes train together, but there is no {', '.join(missing)}"
            raise UserError.of(given, cause, f"{_torchrun(max(2, count))} (or unset {given})")
    elif by_mpi > 1:
        count = by_mpi
        if not wants_cpu() or "MASTER_ADDR" in missing:  # accelerate reads the rest from MPI's variables
            cause = f"started {by_mpi} processes, which would train without each other"
            raise UserError.of("mpirun", cause, _torchrun(by_mpi))
    here = _number("LOCAL_WORLD_SIZE")
    if not wants_cpu() and 0 < gpus() < here:
        fix = "start as many as there are GPUs, or set ACCELERATE_USE_CPU=true"
        raise UserError.of("LOCAL_WORLD_SIZE", f"{here} processes, but there {_are(gpus())} here", fix)
    return count


def wants_cpu() -> bool:
    """Whether accelerate was told to leave GPUs alone."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on")


def gpus() -> int:
    """The GPUs that processes can share a run's work on; Apple's is none, as torch has no way for it."""
    import torch

    kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return 0 if kind is None or kind.type == "mps" else torch.accelerator.device_count()


def _is_told_its_rank() -> bool:
    return "LOCAL_RANK" in os.environ


def _number(name: str) -> int:
    """A count from the environment; 1 if it is not there."""
    text = os.environ.get(name, "").strip()
    if not text:
        return 1
    if not text.isdecimal() or int(text) < 1:
        raise UserError.of(name, f"is {text!r}, which is no number of processes", f"unset {name}")
    return int(text)


def _torchrun(count: int) -> str:
    return f"start them with torchrun --nproc_per_node {count} {Path(sys.argv[0]).name} ...; {_DOCS}"


def _are(count: int) -> str:
    return "is 1 GPU" if count == 1 else f"are {count} GPUs"
