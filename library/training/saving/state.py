"""The training state: a folder from which a run resumes bit for bit.

    <name>-state/
        model.safetensors     the trained weights, in the precision they are trained in
        optimizer.bin         the optimizer's state (torch, loaded with weights_only)
        ema.safetensors       the moving averages, with --use_ema only
        ledger.safetensors    the ledger, with a sample of the trained weights as they began
        scaler.pt             the loss scaler's state, with fp16 only
        train_state.json      position, seed, fingerprint of the data, validation so far, settings

Randomness is a function of (seed, position), so no generator is saved. States are written between optimizer
steps.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.files import whole_folder
from library.problems import UserError, warn
from library.training.position import StateInfo

if TYPE_CHECKING:
    import torch

    from library.training.learner import Learner


def write_state(folder: Path, info: StateInfo, learner: Learner) -> None:
    """Write a state folder, which appears under its name only when it is whole."""
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
    """Load a state into a run. The optimizer keeps the settings that this run gave it.

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
    """An optimizer's state dict with the settings of this optimizer in place of its own: some of them, such
    as `fused`, decide on which device its tensors belong.
    """
    from library.training.optimization.self_tuning import group_settings

    groups = state.get("inner", state)["param_groups"]  # see RoundedOptimizer
    for group, setting in zip(groups, group_settings(optimizer), strict=True):
        group.update(setting)
    return state


def _load_average(path: Path, learner: Learner) -> None:
    from library.models.weights import load_tensors

    average = learner.average
    if average is None:
        if path.is_file():
            warn(f"{path.parent} has moving averages, which are left behind without --use_ema")
    elif path.is_file():
        average.load_tensors(load_tensors(path))
    else:
        warn(f"{path.parent} has no moving averages: they start from its weights")
        average.restart()


def _load_ledger(path: Path, learner: Learner) -> None:
    from library.models.weights import load_tensors

    learner.ledger.restart()
    if path.is_file():
        learner.ledger.load_tensors(load_tensors(path))
