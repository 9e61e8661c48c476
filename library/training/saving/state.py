"""The training state: a folder a run can go on from, bit for bit.

    <name>-state/
        model.safetensors     what is trained, in the precision it is trained in
        optimizer.bin         the optimizer's state (torch, loaded with weights_only)
        ema.safetensors       the moving averages, with --use_ema only
        ledger.safetensors    how the trained weights began, a sample of them
        scaler.pt             the loss scaler's state, with fp16 only
        train_state.json      position, seed, what the position means, validation so far, settings

Randomness is a function of (seed, position), so no generator is saved. States are written between optimizer
steps.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin, get_type_hints

from library.files import restore_folder, whole_folder
from library.problems import UserError, warn

if TYPE_CHECKING:
    import torch

    from library.training.optimization.ema import Average
    from library.training.task import Task
    from library.training.watching.ledger import Ledger


@dataclass(frozen=True)
class StateInfo:
    """train_state.json. current_epoch and current_step are sd-scripts' names: the epoch (1-based) and steps
    done.
    """

    current_epoch: int
    current_step: int
    seed: int
    steps_per_epoch: int
    optimizer: str  # its class: another one could not read its state
    data: str  # fingerprint of the data plan: a step number means the same batches only with the same one
    standing: dict[str, Any] = field(default_factory=dict)  # what validation found so far
    settings: dict[str, Any] = field(default_factory=dict)  # of the run, see settings.py
    log: dict[str, str] = field(default_factory=dict)  # where each tracker writes: it goes on there
    bad_steps: float = field(default_factory=float)  # left out in a row, up to this one; see guard.py
    folder: str = ""

    @classmethod
    def from_json(cls, found: dict[str, Any], folder: Path) -> StateInfo:
        """Raises UserError when a field without a default is missing: the file is somebody else's; and when
        one is of another kind.
        """
        if not isinstance(found, dict):
            found = {}
        wanted = {field.name: field for field in fields(cls) if field.name != "folder"}
        needed = {name for name, field in wanted.items() if field.default_factory is MISSING}
        if needed - found.keys():
            cause = "was not written by Atelier; its position cannot be gone on from exactly"
            raise UserError.of(folder, cause)
        hints = get_type_hints(cls)
        for name in wanted.keys() & found.keys():
            kind = get_origin(hints[name]) or hints[name]
            is_of_kind = isinstance(found[name], (int, float) if kind is float else kind)
            if not is_of_kind or (kind is int and found[name] < 0):
                raise UserError.of(folder / "train_state.json", f"{name} cannot be {found[name]!r}")
        info = cls(**{name: found[name] for name in wanted if name in found}, folder=str(folder))
        if info.steps_per_epoch < 1:
            raise UserError.of(folder / "train_state.json", "an epoch has at least one step")
        return info


def read_state_info(folder: Path) -> StateInfo:
    """The position of a state. Raises UserError when the folder is no state of ours."""
    restore_folder(folder)
    if not folder.is_dir():
        raise UserError.of(folder, "there is no such state folder", "give a folder that ends in -state")
    missing = [
        name
        for name in ("model.safetensors", "optimizer.bin", "train_state.json")
        if not (folder / name).is_file()
    ]
    if missing:
        raise UserError.of(folder, f"is no training state: {', '.join(missing)} missing")
    try:
        found = json.loads((folder / "train_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError.of(folder / "train_state.json", f"cannot be read: {error}") from None
    return StateInfo.from_json(found, folder)


@dataclass(frozen=True)
class Learner:
    """Everything that training changes: what a state holds."""

    task: Task
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    average: Average | None
    ledger: Ledger

    def shown(self, dtype: torch.dtype | None = None) -> AbstractContextManager[None]:
        """Inside, the task is as it is looked at, in previews, validation and results: with --use_ema it has
        the averages, with a schedule-free optimizer that optimizer's own.

        dtype: of averages, which are finer than weights of 16 bits; None: the weights' own.
        """
        from library.training.optimization.self_tuning import is_schedule_free, result_shown

        if self.average is not None:
            return self.average.shown(dtype)
        return result_shown(self.optimizer) if is_schedule_free(self.optimizer) else nullcontext()

    def train(self) -> None:
        """Tell an optimizer that wants to know that training begins."""
        from library.training.optimization.self_tuning import begin_training

        begin_training(self.optimizer)


def write_state(folder: Path, info: StateInfo, learner: Learner) -> None:
    """Write a state folder, whole."""
    from library.models.weights import save_objects, save_tensors

    with whole_folder(folder) as target:
        save_tensors(target / "model.safetensors", learner.task.trained_tensors(), None)
        save_objects(target / "optimizer.bin", learner.optimizer.state_dict())
        if learner.average is not None:
            save_tensors(target / "ema.safetensors", learner.average.tensors(), None)
        save_tensors(target / "ledger.safetensors", learner.ledger.tensors(), None)
        if learner.scaler is not None:
            save_objects(target / "scaler.pt", learner.scaler.state_dict())
        described = {key: value for key, value in asdict(info).items() if key != "folder"}
        (target / "train_state.json").write_text(json.dumps(described, indent=2), encoding="utf-8")


def load_state(info: StateInfo, learner: Learner, kind: str) -> None:
    """Take a state back into a run, whose optimizer keeps the settings that it was made with.

    kind: the class of this run's optimizer.
    Raises UserError when the state belongs to another kind of run or is damaged.
    """
    import pickle

    from library.models.weights import load_tensors

    folder, optimizer = Path(info.folder), learner.optimizer
    if info.optimizer != kind:
        raise UserError.of(
            folder, f"was made with {info.optimizer}, this run uses {kind}", "use the same optimizer"
        )
    try:
        learner.task.load_trained_tensors(load_tensors(folder / "model.safetensors"))
        optimizer.load_state_dict(with_settings(_load(folder / "optimizer.bin"), optimizer))
        if learner.scaler is not None and (folder / "scaler.pt").is_file():
            learner.scaler.load_state_dict(_load(folder / "scaler.pt"))
        _load_average(folder / "ema.safetensors", learner)
        _load_ledger(folder / "ledger.safetensors", learner)
    except (ValueError, KeyError, RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        cause = f"does not fit this run or is damaged ({str(error).splitlines()[0]})"
        raise UserError.of(folder, cause, "resume with the options it was made with") from None


def _load(path: Path) -> dict[str, Any]:
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def with_settings(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's state with the settings of this one: some of them, such as `fused`, say on which device
    its tensors are to be.
    """
    from library.training.optimization.self_tuning import group_settings

    groups = state.get("inner", state)["param_groups"]  # see Rounded
    for group, setting in zip(groups, group_settings(optimizer), strict=True):
        group.update(setting)
    return state


def _load_average(path: Path, learner: Learner) -> None:
    from library.models.weights import load_tensors

    if path.is_file() and learner.average is None:
        warn(f"{path.parent} has moving averages, which are left behind without --use_ema")
    elif path.is_file():
        learner.average.load_tensors(load_tensors(path))
    elif learner.average is not None:
        warn(f"{path.parent} has no moving averages: they start from its weights")
        learner.average.restart()


def _load_ledger(path: Path, learner: Learner) -> None:
    from library.models.weights import load_tensors

    learner.ledger.restart()
    if path.is_file():
        learner.ledger.load_tensors(load_tensors(path))
