"""What the loop needs before its first step, in the order in which it becomes ready."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

from library.console import activity
from library.data.batch import Batch
from library.data.loader import make_loader
from library.data.plan import Course
from library.problems import warn
from library.training.diffusion.objective import timesteps_line
from library.training.interruption import Interruption
from library.training.job import Job
from library.training.optimization.optimizers import class_path
from library.training.optimization.self_tuning import optimizer_warnings
from library.training.saving.disk_space import check_space
from library.training.saving.state import load_state
from library.training.start.model_setup import place_model, set_up_model
from library.training.start.stepping import make_stepper
from library.training.stepper import Stepper
from library.training.watching.validation import Validation


def get_ready(job: Job) -> Stepper:
    """The model in its place, caches filled, and what takes steps, where the state left off."""
    run, session, task = job.run, job.session, job.task
    with activity("hashing the weights, by which cache files are told apart"):
        job.batches.identify(task.model, run)  # as they were read
    set_up_model(job)
    place_model(job)
    # Before caches are filled: then parts with nothing left to do leave the device, and DDP wants all on one.
    stepper = make_stepper(job)
    check_space(run, task)
    _announce(job, stepper)
    job.batches.fill_caches(task.model, run, session)
    if session.resumed is not None:
        with activity(f"loading {session.resumed.folder}"):
            load_state(session.resumed, stepper.learner, class_path(run.optimizer))
    return stepper


def training_batches(job: Job) -> Generator[Batch, None, None]:
    """The batches of all steps to come. To be closed."""
    run, session, plan = job.run, job.session, job.plan
    return make_loader(
        job.batches.builder(
            job.task.model,
            run,
            session,
            total_steps=plan.last_step,
            needs=job.task.needs,
        ),
        plan.course.positions(plan.first_step, plan.last_step),
        workers=min(run.data.max_data_loader_n_workers, os.cpu_count() or 1),
        pin_memory=session.device.type == "cuda",
    )


def make_validation(job: Job, interruption: Interruption) -> Validation:
    """What measures the held-out data, always on the same batches."""
    run, session, task = job.run, job.session, job.task
    held_out = job.batches.validation
    if held_out is None:
        return Validation(run.validation, task, session, None, interruption)
    builder = held_out.builder(
        task.model,
        run,
        session,
        total_steps=job.plan.last_step,
        needs=task.needs,
        fixed_seed=run.data.validation_seed or 0,
    )
    count = held_out.batches_per_epoch(session.accelerator.num_processes)
    positions = list(Course(count).positions(0, min(count, run.validation.max_validation_steps or count)))

    def batches() -> Iterator[Batch]:
        return make_loader(builder, positions)

    return Validation(run.validation, task, session, batches, interruption, count=len(positions))


def _announce(job: Job, stepper: Stepper) -> None:
    """Say what will be trained, on what, and for how long."""
    session, plan, optimizer = job.session, job.plan, stepper.schedule.optimizer
    for line in job.batches.summary():
        session.say(line)
    for line in (*job.batches.warnings(), *optimizer_warnings(optimizer, job.run)):
        warn(line)
    count = sum(parameter.numel() for parameter in job.task.trained_parameters())
    course, processes = plan.course, session.accelerator.num_processes
    span = (
        f"steps {plan.first_step} to {plan.last_step} ({plan.epochs} epoch{'s' if plan.epochs > 1 else ''})"
    )
    epoch = f"{course.batches_per_epoch} batches and {course.steps_per_epoch} steps an epoch"
    where = f"{processes} process{'es' if processes > 1 else ''} on {session.device.type}"
    session.say(f"training {count:,} parameters with seed {session.seed}: {span}, {epoch}, {where}")
    if timesteps := timesteps_line(job.run.objective, job.task.objective):
        session.say(timesteps)
