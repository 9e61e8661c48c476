"""What `add` was asked for: a trainer's command, an option file or a folder of these -> commands."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from library.launcher import read_command
from library.migration.commands import OLD_NAMES, TRAINERS
from library.options.config_file import read_config_file
from library.options.queue_tools import CONFIG_FILE
from library.problems import Problems, UserError

# Options that one trainer alone has, or that make it the one that is meant: the first that is set decides.
_SIGNS = (
    ("prompts_file", "train_leco.py"),
    ("cond_emb_dim", "train_control_net_lllite.py"),
    ("network_module", "train_network.py"),
    ("token_string", "train_textual_inversion.py"),
    ("controlnet_model_name_or_path", "train_control_net.py"),
    ("control_net_lr", "train_control_net.py"),
    ("block_lr", "sdxl_train.py"),
    ("learning_rate_te1", "sdxl_train.py"),
    ("learning_rate_te2", "sdxl_train.py"),
    ("in_json", "fine_tune.py"),
)
_MANY_MACHINES = ("num_machines", "machine_rank", "gpu_ids")


@dataclass(frozen=True)
class Command:
    """A trainer's command.

    script: the trainer's file name.
    words: what follows it.
    launch: options of accelerate launch, if it begins with that.
    processes: how many that asks for.
    source: the file of it, for problems, where there are several.
    """

    script: str
    words: tuple[str, ...]
    launch: tuple[str, ...] | None = None
    processes: int = 1
    source: str = ""


def read_target(target: Sequence[str], script: str | None) -> list[Command]:
    """The commands that words after `add` ask for. Raises UserError with all that cannot be one.

    script: of option files that do not tell their trainer.
    """
    for index, word in enumerate(target):
        if word.lower().endswith(".py"):
            launch, processes = _launch(target[:index])
            return [Command(_trainer(word), tuple(target[index + 1 :]), launch, processes)]
    if target[0] == CONFIG_FILE and len(target) > 1:
        target = target[1:]
    first, rest = Path(target[0]), tuple(target[1:])
    if first.is_dir():
        files = sorted(first.glob("*.toml"))
        if not files:
            raise UserError.of(first, "holds no option files (.toml)")
        problems = Problems()
        found = [problems.attempt(_of_file, str(path), rest, script) for path in files]
        problems.raise_if_any()
        return [replace(one, source=path.name) for one, path in zip(found, files, strict=True) if one]
    if first.suffix == ".toml" or first.is_file() or first.with_name(first.name + ".toml").is_file():
        return [_of_file(target[0], rest, script)]
    fix = "give a command (train_network.py --...), an option file or a folder of these"
    raise UserError.of(target[0], "is nothing that can be added", fix)


def _launch(words: Sequence[str]) -> tuple[tuple[str, ...] | None, int]:
    """What stands before a trainer: the options of accelerate launch, and the processes these ask for."""
    if not words or (len(words) == 1 and re.match(r"py(thon)?[\d.]*(\.exe)?$", Path(words[0]).name.lower())):
        return None, 1
    read = read_command(words)
    if read is None or read[0] != "accelerate launch":
        fix = "give the trainer alone, or with accelerate launch; --gpus N is for several GPUs"
        raise UserError.of(words[0], "cannot be kept with a run", fix)
    from library.training.processes import asked_of_accelerate

    launch = read[1]
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            processes, machines = asked_of_accelerate([*launch, "train.py"])
    except (SystemExit, OSError, ValueError):
        cause = f"does not know all of {' '.join(launch)!r}"
        raise UserError.of("accelerate launch", cause, "see accelerate launch --help") from None
    given = [name for name in _MANY_MACHINES if any(word.split("=")[0] == f"--{name}" for word in launch)]
    if machines > 1 or "gpu_ids" in given:
        cause = "is for the queue to decide: a run gets the GPUs of its slots, on this machine"
        raise UserError.of(
            f"accelerate launch --{given[0] if given else 'num_machines'}", cause, "leave it out"
        )
    return launch, processes


def _trainer(word: str) -> str:
    name = re.split(r"[/\\]", word)[-1]
    name = OLD_NAMES.get(name, name)
    if name not in TRAINERS:
        raise UserError.of(word, "is no trainer of Atelier", f"one of {', '.join(TRAINERS)}")
    return name


def _of_file(path: str, rest: tuple[str, ...], script: str | None) -> Command:
    _, options = read_config_file(path)
    trainer = _trainer(script) if script else _told_by(path, options)
    return Command(trainer, (CONFIG_FILE, path, *rest))


def _told_by(path: str, options: dict[str, Any]) -> str:
    """The trainer that an option file is for. Those for one family alone train no more than the others."""
    for name, trainer in _SIGNS:
        if options.get(name):
            return trainer
    fix = "say which trainer it is for: --script train_db.py"
    raise UserError.of(path, "does not tell its trainer", fix)
