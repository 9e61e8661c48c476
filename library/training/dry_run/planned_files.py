"""Which files a run will write, how large they are, and how many bytes of them exist at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from library.options.saving import SavingOptions
from library.training.run_plan import RunPlan
from library.training.saving.checkpoints import Checkpoints, best_name
from library.training.saving.saves import Saves


@dataclass
class PlannedFiles:
    """The files of a run, as its saver writes and removes them.

    result_size, state_size: bytes of one.
    results, states: the names written, in order.
    left: sizes, by name, of the files still there.
    most: the most bytes at once; an old file stays until the new one is whole.
    """

    result_size: int
    state_size: int
    results: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)
    most: int = 0

    def add(self, path: Path, *, is_state: bool) -> None:
        size = self.state_size if is_state else self.result_size
        (self.states if is_state else self.results).append(path.name)
        self.most = max(self.most, sum(self.left.values()) + size)
        self.left[path.name] = size

    def remove(self, path: Path) -> None:
        self.left.pop(path.name, None)


def plan_files(
    options: SavingOptions, suffix: str, plan: RunPlan, *, sizes: tuple[int, int], keeps_best: bool
) -> PlannedFiles:
    """What the run's own saver would write and remove, without doing it.

    sizes: bytes of a result and of a state.
    keeps_best: whether the best result of validation is saved too.
    """
    files = PlannedFiles(*sizes)
    saver = Checkpoints(
        options,
        suffix,
        plan.epochs,
        save_result=lambda path, epoch, step: files.add(path, is_state=False),
        save_state=lambda path, epoch, step: files.add(path, is_state=True),
        saves=Saves(options.output_dir, fingerprint=lambda path: path.name),
        remove_path=files.remove,
    )
    if keeps_best:
        files.add(Path(best_name(options.output_name) + suffix), is_state=False)
    for step in range(plan.first_step + 1, plan.last_step + 1):
        epoch = plan.epoch_after(step)
        if saver.saves_at_step(step):
            saver.after_step(epoch, step)
        if plan.ends_epoch(step) and saver.saves_at_epoch(epoch):
            saver.after_epoch(epoch, step)
    saver.at_end(plan.epochs, plan.last_step)
    return files


def name_pattern(names: Sequence[str]) -> str:
    """`x-000001` and `x-000009` as "x-000001 ... x-000009"; a single name stays."""
    return names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"
