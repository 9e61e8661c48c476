"""The page that --dry_run prints on the console: a label and a few lines for each thing."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from library.data.batch import Batch
from library.models import FAMILIES
from library.training.dry_run.memory_choices import MemoryForecast
from library.training.dry_run.planned_files import PlannedFiles, name_pattern
from library.training.job import Job
from library.training.memory.forecast import device_memory
from library.training.run import TrainingRun
from library.training.run_plan import RunPlan
from library.training.session import Session
from library.training.tasks.task import Task
from library.wording import columns, counted

LABEL = 10  # width of a label, in columns


@dataclass(frozen=True)
class Trial:
    """What one step and one save took.

    loss: of the step.
    seconds: of the step.
    saving: seconds of the save.
    result_size: bytes of a result.
    state_size: bytes of a state.
    """

    loss: float
    seconds: float
    saving: float
    result_size: int
    state_size: int


def about_run(job: Job) -> list[str]:
    """What is trained, on which data, for how long."""
    run, session, task = job.run, job.session, job.task
    return [
        *section("model", _about_model(run, task)),
        *section("trains", _about_parts(run, task)),
        *section("data", job.batches.outline(session.seed, session.accelerator.num_processes)),
        *section("run", _about_length(run, session, job.plan)),
    ]


def about_memory(outlook: MemoryForecast, session: Session, batch: Batch) -> list[str]:
    """The estimate, its parts, and options that would lower it."""
    free, there = device_memory(session.device)
    room = f"{gigabytes(there)} there, {gigabytes(free)} free now"
    if (memory := outlook.memory) is None:
        return section("memory", [f"cannot be told for this run ({outlook.reason}); {room}"])
    rows = [
        ("weights", memory.weights),
        ("optimizer", memory.optimizer),
        ("gradients", memory.gradients),
        ("activations", memory.activations),
        ("encoding the pictures, before", memory.encoding),
        ("filling caches, before all steps", memory.caching),
    ]
    lines = [f"about {gigabytes(memory.peak)} at its peak on the {session.device.type} ({room}), beside"]
    lines[0] += " the program itself"
    lines += columns([(f"  {name}", gigabytes(size)) for name, size in rows if size], right=(1,))
    if memory.main:
        lines.append(f"and {gigabytes(memory.main)} of main memory for blocks that come and go")
    if outlook.choices:
        lines.append("would be lower with")
        lines += columns(
            [
                (f"  {option}", f"-{gigabytes(memory.peak - peak)}", f"to {gigabytes(peak)}")
                for option, peak in outlook.choices
            ],
            right=(1,),
        )
    return section("memory", lines)


def about_trial(trial: Trial, plan: RunPlan) -> list[str]:
    """How long a real step and a real save took."""
    steps = plan.last_step - plan.first_step
    lines = [
        f"one of the largest batches took {_duration(trial.seconds)}, loss {trial.loss:.4f}",
        f"{counted(steps, 'step')} as slow as this first one would take {_duration(steps * trial.seconds)}",
        f"a save took {_duration(trial.saving)}",
    ]
    return section("tried", lines)


def about_files(files: PlannedFiles, run: TrainingRun, plan: RunPlan) -> list[str]:
    """Which files would be written, and whether there is room for them."""
    folder = run.saving.output_dir
    rows = [_row(files.results[-1:], files.result_size, "the result")]
    between = list(dict.fromkeys(files.results[:-1]))
    rows += [_row(between, files.result_size, "saved on the way")] if between else []
    rows += [_row(files.states, files.state_size, "to go on from")] if files.states else []
    rows += _previews(run, plan)
    free = shutil.disk_usage(_existing(folder)).free
    lines = [f"in {folder}: at most {gigabytes(files.most)} at once, {gigabytes(free)} free"]
    kept = len(files.left)
    written = len(files.results) + len(files.states)
    if kept < written:
        lines[0] += f"; {kept} of {written} are still there at the end"
    if files.most > free:
        lines[0] += " - TOO LITTLE"
    return section("files", [*lines, *columns(rows)])


def gigabytes(size: float) -> str:
    """`12.3 GB`, `45 MB` or `0.4 MB`; GB are 2^30 bytes, as GPUs are sold."""
    if size >= 2**30:
        return f"{size / 2**30:.1f} GB"
    return f"{size / 2**20:.0f} MB" if size >= 10 * 2**20 else f"{size / 2**20:.1f} MB"


def _about_model(run: TrainingRun, task: Task) -> list[str]:
    model = task.model
    name = Path(run.model.pretrained_model_name_or_path or "").name
    lines = [f"{name}: {FAMILIES[model.family].title}, {_PREDICTS[task.objective.prediction]}"]
    for part, module in model.parts.items():
        counts = Counter[str]()
        for parameter in module.parameters():
            counts[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
        types = ", ".join(f"{_millions(count)} {dtype}" for dtype, count in counts.items())
        lines.append(f"  {part:<16}{types}")
    return lines


_PREDICTS = {"epsilon": "predicts the noise", "v": "predicts v", "flow": "predicts the flow"}


def _about_parts(run: TrainingRun, task: Task) -> list[str]:
    groups = task.param_groups()
    rows = [
        (group["name"], f"{sum(p.numel() for p in group['params']):,}", _rate(group["lr"]))
        for group in groups
    ]
    total = sum(p.numel() for group in groups for p in group["params"])
    schedule = run.schedule.lr_scheduler.replace("_", " ")
    what = f"{total:,} parameters with {run.optimizer.optimizer_name}, learning rate {schedule}"
    return [what, *(f"  {line}" for line in columns(rows, right=(1,)))]


def _rate(rate: float | None) -> str:
    return "learning rate of its own" if rate is None else f"learning rate {rate:g}"


def _about_length(run: TrainingRun, session: Session, plan: RunPlan) -> list[str]:
    course, processes = plan.course, session.accelerator.num_processes
    span = (
        f"steps {plan.first_step + 1:,} to {plan.last_step:,}"
        if plan.first_step
        else f"{plan.last_step:,} steps"
    )
    each = f"{course.steps_per_epoch:,} steps each ({counted(course.batches_per_epoch, 'batch', 'batches')})"
    where = f"{counted(processes, 'process', 'processes')} on the {session.device.type}"
    precision = {"no": "float32"}.get(run.training.mixed_precision, run.training.mixed_precision)
    return [
        f"{span} in {counted(plan.epochs, 'epoch')} of {each}",
        f"{where}, computing in {precision}, seed {session.seed}",
    ]


def _previews(run: TrainingRun, plan: RunPlan) -> list[tuple[str, ...]]:
    options = run.preview
    if options.sample_prompts is None:
        return []
    return [(f"{run.saving.output_name or 'last'}... in sample/", "", "previews")]


def _row(names: Sequence[str], size: int, what: str) -> tuple[str, ...]:
    count = f"{len(names)} x " if len(names) > 1 else ""
    return f"  {name_pattern(names)}", count + gigabytes(size), what


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.resolve().parents) if parent.is_dir())


def section(label: str, lines: Iterable[str]) -> list[str]:
    """Lines below one another, behind a label."""
    first, *rest = lines
    return ["", f"{label:<{LABEL}}{first}", *(" " * LABEL + line for line in rest)]


def _millions(count: int) -> str:
    return f"{count / 1e6:,.0f} million" if count >= 10e6 else f"{count:,}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
