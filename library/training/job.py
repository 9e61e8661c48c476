"""What a run is about: the things that nearly every part of it needs."""

from __future__ import annotations

from dataclasses import dataclass

from library.training.batches import BatchSource
from library.training.output import Output
from library.training.run import TrainingRun
from library.training.run_plan import RunPlan
from library.training.session import Session
from library.training.tasks.task import Task


@dataclass(frozen=True)
class Job:
    """A run, from its options to what it writes.

    run: what the user asked for.
    session: the processes and their device.
    task: what is trained.
    batches: what it is trained on.
    output: in which form, and with which metadata, results are saved.
    plan: its steps.
    """

    run: TrainingRun
    session: Session
    task: Task
    batches: BatchSource
    output: Output
    plan: RunPlan
