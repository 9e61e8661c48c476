"""How far a run goes: its steps and epochs, and where it starts."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from library import queued
from library.data.plan import Course
from library.options.training import TrainingOptions
from library.problems import UserError, warn
from library.training.batches import BatchSource
from library.training.session import Session


@dataclass(frozen=True)
class RunPlan:
    """Which steps a run takes.

    course: how its epochs divide into steps.
    first_step: steps done at the start.
    last_step: steps done at the end.
    fingerprint: of the batches; with another one a step number means other batches.
    """

    course: Course
    first_step: int
    last_step: int
    fingerprint: str

    @property
    def epochs(self) -> int:
        """Epochs of the whole run; the last one may end early."""
        return ceil(self.last_step / self.course.steps_per_epoch)

    def epoch_after(self, step: int) -> int:
        """The (1-based) epoch that the last of `step` steps lies in."""
        return max(1, ceil(step / self.course.steps_per_epoch))

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch is whole after `step` steps."""
        return step % self.course.steps_per_epoch == 0


def plan_run(options: TrainingOptions, session: Session, batches: BatchSource) -> RunPlan:
    """The plan of a run. Raises UserError when it would start at its end or later, except when it resumes a
    state of the last step, whose result may not have been written.
    """
    processes = session.accelerator.num_processes
    course = Course(batches.batches_per_epoch(processes), options.gradient_accumulation_steps)
    total = options.max_train_steps
    if options.max_train_epochs is not None:
        total = options.max_train_epochs * course.steps_per_epoch
    fingerprint = batches.fingerprint(session.seed, processes)
    first = _first_step(options, session, course, fingerprint)
    skips = options.initial(course.steps_per_epoch) is not None
    if first > total or (first == total and skips):
        raise UserError.of(
            "--initial_step" if skips else "--resume",
            f"there are {first} steps behind it, this run ends at {total}",
            "raise --max_train_steps or --max_train_epochs",
        )
    return RunPlan(course, first, total, fingerprint)


def _first_step(options: TrainingOptions, session: Session, course: Course, fingerprint: str) -> int:
    state, asked = session.resumed, options.initial(course.steps_per_epoch)
    if asked is not None:  # --initial_step and --initial_epoch take precedence over the state
        if state is not None and asked != state.current_step:
            warn(f"the state has {state.current_step} steps behind it; going on as if there were {asked}")
        return asked
    if state is None:
        return 0
    if (state.data, state.steps_per_epoch) == (fingerprint, course.steps_per_epoch):
        return state.current_step
    if queued.is_own_state(state.run):
        cause = f"has changed since step {state.current_step}, where this run goes on"
        raise UserError.of("training data", cause, "restore it, or add the run to its queue anew")
    # Its steps meant other batches, so only whole epochs count as done.
    epochs_done = state.current_step // state.steps_per_epoch
    first = epochs_done * course.steps_per_epoch
    warn(
        f"the data, batch size or accumulation changed since {state.folder} was saved: "
        f"going on from the start of epoch {epochs_done + 1}, step {first}"
    )
    return first
