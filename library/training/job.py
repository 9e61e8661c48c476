"""What a run is about: the things that nearly every part of it needs."""

from __future__ import annotations

from dataclasses import dataclass

from library.data.training_data import TrainingData
from library.training.output import Output
from library.training.run import TrainingRun
from library.training.run_plan import RunPlan
from library.training.session import Session
from library.training.tasks.task import Task


@dataclass(frozen=True)
class Job:
    """run: what the user asked for. session: the processes and their device. task: what is trained on `data`
    and saved as `output` says. plan: its steps.
    """

    run: TrainingRun
    session: Session
    task: Task
    data: TrainingData
    output: Output
    plan: RunPlan
