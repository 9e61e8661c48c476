"""Opens the trackers that a run asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.files import prepare_folder
from library.options.logging import LoggingOptions
from library.options.public import public_options
from library.problems import Problems, warn
from library.table_files import read_tables
from library.training.watching.trackers import Tracker, Trackers, tell

if TYPE_CHECKING:
    from library.training.run import TrainingRun
    from library.training.session import Session

NAMES = ("tensorboard", "wandb")
_OURS = {"tensorboard": ("log_dir", "purge_step"), "wandb": ("dir", "config", "settings")}


def check_logging(options: LoggingOptions) -> None:
    """Raises UserError if the folder for logs cannot be used, a tracker is not installed, or it does not have
    the settings of --log_tracker_config.
    """
    problems = Problems()
    if options.logging_dir is not None:
        problems.attempt(prepare_folder, options.logging_dir, "choose another --logging_dir", make=False)
    for name in options.trackers:
        if find_spec(name) is None:
            problems.add("--log_with", f"{name} is not installed", f"pip install {name}")
        elif options.log_tracker_config is not None:
            problems.attempt(_check_settings, options.log_tracker_config, name)
    problems.raise_if_any()


def open_trackers(run: TrainingRun, session: Session, name: str, first_step: int) -> Trackers:
    """The trackers of a run in the first process; none in others. One that cannot be opened is left out, with
    a warning.

    name: of this trainer's logs.
    first_step: steps done at the start.
    """
    found = Trackers()
    openers: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: _open_tensorboard(run, session, name, first_step, found.place),
        "wandb": lambda: _open_wandb(run, session, name, found.place),
    }
    for tracker in run.logging.trackers if session.is_main else ():
        try:
            found.trackers[tracker] = openers[tracker]()
        except Exception as error:  # as in Trackers
            warn(f"{tracker} cannot be used ({tell(error)}): this run goes on without it")
    return found


def _open_tensorboard(
    run: TrainingRun, session: Session, name: str, first_step: int, place: dict[str, str]
) -> Tracker:
    from library.training.watching.tensorboard import TensorBoardTracker, run_folder

    before = session.resumed.log.get("tensorboard") if session.resumed else None
    folder = run_folder(run.logging, name, before)
    goes_on = folder.parent.name == before
    tracker = TensorBoardTracker(
        folder,
        first_step if goes_on else 0,
        settings=_settings(run.logging, "tensorboard"),
        config=_config(run),
    )
    place["tensorboard"] = folder.parent.name
    session.say(_where("the log", str(folder), goes_on=goes_on, resumes=before is not None))
    return tracker


def _open_wandb(run: TrainingRun, session: Session, name: str, place: dict[str, str]) -> Tracker:
    from library.training.watching.weights_and_biases import WandbTracker

    folder = run.logging.logging_dir or run.saving.output_dir
    before = session.resumed.log.get("wandb") if session.resumed else None
    assert folder is not None
    tracker = WandbTracker(
        run.logging,
        run.logging.log_tracker_name or name,
        folder,
        run_id=before,
        settings=_settings(run.logging, "wandb"),
        config=_config(run),
    )
    place["wandb"] = tracker.run_id
    goes_on = tracker.run_id == before
    session.say(_where("the log on wandb", tracker.place, goes_on=goes_on, resumes=before is not None))
    return tracker


def _where(what: str, place: str, *, goes_on: bool, resumes: bool) -> str:
    if goes_on:
        return f"{what} goes on: {place}"
    return f"{what}{' begins anew' if resumes else ''}: {place}"


def _config(run: TrainingRun) -> Mapping[str, Any]:
    return public_options(run) if run.logging.log_config else {}


def _settings(options: LoggingOptions, tracker: str) -> dict[str, Any]:
    """A tracker's table of --log_tracker_config."""
    path = options.log_tracker_config
    return {} if path is None else read_tables(path).get(tracker, {})


def _check_settings(path: Path, tracker: str) -> None:
    """Raises UserError if the file has tables of no tracker, or settings that this tracker does not have."""
    tables, problems = read_tables(path), Problems()
    known = ", ".join(sorted(_arguments(tracker) - set(_OURS[tracker])))
    for table, settings in tables.items():
        if table not in NAMES or not isinstance(settings, dict):
            problems.add(path, f"{table} is no tracker's table", f"write [{'] or ['.join(NAMES)}]")
    for key in tables.get(tracker, {}) if not problems.found else ():
        if key in _OURS[tracker]:
            problems.add(path, f"[{tracker}] {key} is set by the run itself", "remove it")
        elif key not in _arguments(tracker):
            problems.add(path, f"[{tracker}] has no setting {key}", f"it has {known}")
    problems.raise_if_any()


def _arguments(tracker: str) -> set[str]:
    """The settings that a tracker has."""
    if tracker == "wandb":
        import wandb

        return set(inspect.signature(wandb.init).parameters)
    from torch.utils.tensorboard import SummaryWriter

    return set(inspect.signature(SummaryWriter).parameters)
