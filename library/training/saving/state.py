"""The training state: a folder from which a run resumes bit for bit.

    <name>-state/
        model.safetensors     the trained weights, in the precision they are trained in
        optimizer.bin         the optimizer's state (torch, loaded with weights_only); with --shard
                              optimizer.safetensors and optimizer.json, see optimizer_files.py
        ema.safetensors       the moving averages, with --use_ema only
        ledger.safetensors    the ledger, with a sample of the trained weights as they began
        scaler.pt             the loss scaler's state, with fp16 only
        history.json          the figures and previews of the run's report, so that its curves go on
        pictures.json         size, times and digest of each picture, so that edited ones are named
        train_state.json      position, seed, fingerprint of the data, validation so far, settings
        manifest.json         size and hash of each of these files

Randomness is a function of (seed, position), so no generator is saved. States are written between optimizer
steps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from library.files import whole_folder
from library.problems import UserError, warn
from library.training.position import OPTIMIZER_TENSORS, OPTIMIZER_TEXT, StateInfo
from library.training.saving.hashed_files import HashedFiles
from library.training.saving.manifest import is_as_saved, write_manifest

if TYPE_CHECKING:
    import torch

    from library.training.learner import Learner
    from library.training.saving.optimizer_files import Place


def write_state(
    folder: Path, info: StateInfo, learner: Learner, told: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write a state folder, which appears under its name only when it is whole.

    told: files that only tell of the run, name -> text.
    """
    from library.models.weights import save_objects, save_tensors
    from library.training.optimization.self_tuning import unwrapped
    from library.training.saving.optimizer_files import split_state

    with whole_folder(folder) as target, HashedFiles() as hashed:

        def save(name: str, tensors: dict[str, torch.Tensor]) -> None:
            save_tensors(target / name, tensors, create=hashed.named(name))

        weights = learner.weights
        save("model.safetensors", learner.task.trained_tensors())
        state = weights.optimizer_state(unwrapped(learner.optimizer))
        if weights.is_sharded:
            tensors, text = split_state(state)
            save(OPTIMIZER_TENSORS, tensors)
            (target / OPTIMIZER_TEXT).write_text(text, encoding="utf-8")
        else:
            save_objects(target / "optimizer.bin", state, create=hashed.named("optimizer.bin"))
        if learner.average is not None:
            save("ema.safetensors", weights.averages(learner.average.tensors()))
        save("ledger.safetensors", learner.ledger.tensors())
        if learner.scaler is not None:
            save_objects(target / "scaler.pt", learner.scaler.state_dict())
        described = {key: value for key, value in asdict(info).items() if key != "folder"}
        (target / "train_state.json").write_text(json.dumps(described, indent=2), encoding="utf-8")
        for name, text in told.items():
            (target / name).write_text(text, encoding="utf-8")
        write_manifest(target, hashed.entries)


def load_state(info: StateInfo, learner: Learner, kind: str) -> None:
    """Load a state into a run. The optimizer keeps the settings that this run gave it.

    kind: the class of this run's optimizer.
    Raises UserError when the state belongs to another kind of run or is damaged.
    """
    import torch

    from library.training.optimization.self_tuning import innermost, unwrapped
    from library.training.saving.optimizer_files import has_optimizer_files, read_optimizer_files
    from library.training.saving.state_checks import (
        check_numbers,
        check_optimizer,
        read_objects,
        read_tensors,
    )

    folder, optimizer = Path(info.folder), learner.optimizer
    if info.optimizer != kind:
        raise UserError.of(
            folder, f"was made with {info.optimizer}, this run uses {kind}", "use the same optimizer"
        )
    try:
        place = learner.weights.placing(unwrapped(optimizer))
        if has_optimizer_files(folder):
            learned = read_optimizer_files(folder, place)
        else:
            learned = _placed(read_objects(folder / "optimizer.bin"), place)
        check_optimizer(_inner(learned, optimizer), innermost(optimizer))
        with learner.weights.loading():
            trained = learner.task.trained_tensors()
            learner.task.load_trained_tensors(read_tensors(folder / "model.safetensors", trained))
        optimizer.load_state_dict(with_settings(learned, optimizer))
        if learner.scaler is not None and (folder / "scaler.pt").is_file():
            scale = read_objects(folder / "scaler.pt")
            check_numbers(scale, learner.scaler.state_dict())
            learner.scaler.load_state_dict(scale)
        _load_average(folder / "ema.safetensors", learner)
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # libraries fail in many ways at what is not what they wrote
        cause = f"does not fit this run or is damaged ({_first_line(error)})"
        raise UserError.of(folder, cause, "resume with the options it was made with") from None
    _load_ledger(folder / "ledger.safetensors", learner)


def _placed(state: Any, place: Place) -> Any:
    """A state dict with what this process keeps of its tensors; one that is none, as it is."""
    import torch

    kept = state.get("state") if isinstance(state, dict) else None
    if not isinstance(kept, dict):
        return state
    for number, one in kept.items():
        if isinstance(one, dict) and type(number) is int:
            one |= {
                name: place(number, value) for name, value in one.items() if isinstance(value, torch.Tensor)
            }
    return state


def _inner(state: Any, optimizer: torch.optim.Optimizer) -> Any:
    """The package's own part of a state dict. Raises ValueError when 16-bit weights have none."""
    from library.training.optimization.self_tuning import innermost, unwrapped

    if innermost(optimizer) is unwrapped(optimizer):
        return state
    if not isinstance(state, dict) or type(state.get("steps")) is not int or state["steps"] < 0:
        raise ValueError("it is not of 16-bit weights")
    return state.get("inner")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def with_settings(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's state dict with the settings of this optimizer in place of its own: some of them, such
    as `fused`, decide on which device its tensors belong. What an older version of the optimizer did not
    have is this one's too.
    """
    from library.training.optimization.self_tuning import group_settings, innermost

    groups = state.get("inner", state)["param_groups"]  # see RoundedOptimizer
    for group, own, setting in zip(
        groups, innermost(optimizer).param_groups, group_settings(optimizer), strict=True
    ):
        group |= {key: value for key, value in own.items() if key not in group} | setting
    return state


def _load_average(path: Path, learner: Learner) -> None:
    from library.training.saving.state_checks import read_tensors

    average = learner.average
    if average is None:
        if path.is_file():
            warn(f"{path.parent} has moving averages, which are left behind without --use_ema")
    elif path.is_file():
        weights = learner.weights
        tensors = read_tensors(path, weights.averages(average.tensors()))
        if tensors["updates"] < 0:
            raise ValueError("the number of updates is negative")
        average.load_tensors(weights.place_averages(tensors))
    else:
        warn(f"{path.parent} has no moving averages: they start from its weights")
        average.restart()


def _load_ledger(path: Path, learner: Learner) -> None:
    """The ledger only tells of the run: without a whole one it starts here."""
    from library.models.weights import open_tensors

    learner.ledger.restart()
    if not os.path.lexists(path):
        return
    try:
        if not path.is_file() or not is_as_saved(path):  # a pipe would be waited for
            raise ValueError("is damaged")
        file, own = open_tensors(path), learner.ledger.tensors()
        names = [name for name, tensor in own.items() if file.shapes.get(name) == tuple(tensor.shape)]
        learner.ledger.load_tensors({name: file.read(name) for name in names})
    except Exception:  # whatever it is, it costs no more than figures
        warn(f"{path}: is damaged; the table of what was trained begins at this step")
