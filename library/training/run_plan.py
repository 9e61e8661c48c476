"""How far a run goes: steps, epochs, and where it starts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import ceil

from library.data.plan import Course, GlobalBatch, plan_epoch
from library.data.training_data import TrainingData
from library.options.training import TrainingOptions
from library.problems import UserError, warn
from library.training.session import Session


@dataclass(frozen=True)
class RunPlan:
    """first_step, last_step: steps done at the start and at the end. data: fingerprint of the batches."""

    course: Course
    first_step: int
    last_step: int
    data: str

    @property
    def epochs(self) -> int:
        """Epochs of the whole run, the last one possibly not whole."""
        return ceil(self.last_step / self.course.steps_per_epoch)

    def epoch_after(self, step: int) -> int:
        """The (1-based) epoch that the last of `step` steps lies in."""
        return max(1, ceil(step / self.course.steps_per_epoch))

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch is whole after `step` steps."""
        return step % self.course.steps_per_epoch == 0


def plan_run(options: TrainingOptions, session: Session, data: TrainingData) -> RunPlan:
    """Raises UserError when the run would start where it ends, or later."""
    batches = plan_epoch(data, session.seed, 0, session.accelerator.num_processes)
    course = Course(len(batches), options.gradient_accumulation_steps)
    total = options.max_train_steps
    if options.max_train_epochs is not None:
        total = options.max_train_epochs * course.steps_per_epoch
    fingerprint = _fingerprint(data, batches)
    first = _first_step(options, session, course, fingerprint)
    if first >= total:
        raise UserError.of(
            "--resume" if options.initial(course.steps_per_epoch) is None else "--initial_step",
            f"there are {first} steps behind it, this run ends at {total}",
            "raise --max_train_steps or --max_train_epochs",
        )
    return RunPlan(course, first, total, fingerprint)


def _first_step(options: TrainingOptions, session: Session, course: Course, fingerprint: str) -> int:
    state, asked = session.resumed, options.initial(course.steps_per_epoch)
    if asked is not None:
        if state is not None and asked != state.current_step:
            warn(f"the state has {state.current_step} steps behind it; going on as if there were {asked}")
        return asked
    if state is None:
        return 0
    if (state.data, state.steps_per_epoch) == (fingerprint, course.steps_per_epoch):
        return state.current_step
    epochs_done = state.current_step // state.steps_per_epoch
    first = epochs_done * course.steps_per_epoch
    warn(
        f"the data, batch size or accumulation changed since {state.folder} was saved: "
        f"going on from the start of epoch {epochs_done + 1}, step {first}"
    )
    return first


def _fingerprint(data: TrainingData, batches: list[GlobalBatch]) -> str:
    """Changes when a step number would mean other batches than before."""
    records = (data.records[index] for index in data.samples)
    text = "\n".join(
        [
            *(f"{record.image.name} {record.caption}" for record in records),
            *(f"{batch.size} {batch.samples}" for batch in batches),
        ]
    )
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
