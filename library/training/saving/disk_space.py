"""Whether the disk has room for what a run saves, checked before hours of training."""

from __future__ import annotations

import errno
import shutil
from typing import TYPE_CHECKING

from library.problems import UserError
from library.training.optimization.ledger import SAMPLE
from library.training.session import dtype_of

if TYPE_CHECKING:
    from library.training.run import TrainingRun
    from library.training.tasks.task import Task

OPTIMIZER_BYTES = 8  # per trained value: at most two moments in float32
AVERAGE_BYTES = LEDGER_BYTES = 4  # per value, in float32
PARTS = 4  # that the ledger samples, at most: a denoiser, two text encoders, and one to spare
HEADERS = (
    1.02  # names, shapes and metadata; measured on a LoRA of rank 4, which has the largest share of them
)


def check_space(run: TrainingRun, task: Task) -> None:
    """Raises UserError if the output folder has no room for one result and one state side by side."""
    folder = run.saving.output_dir
    needed, free = bytes_at_once(run, task), shutil.disk_usage(folder).free
    if free < needed:
        cause = f"has {free / 2**20:,.0f} MB free; a save with its state needs {needed / 2**20:,.0f} MB"
        full = OSError(errno.ENOSPC, cause)  # a queue tells a full disk from wrong options by it
        raise UserError.of(folder, cause, "make room or choose another --output_dir") from full


def has_room(run: TrainingRun, task: Task) -> bool:
    """Whether there is room for both."""
    return shutil.disk_usage(run.saving.output_dir).free >= bytes_at_once(run, task)


def bytes_at_once(run: TrainingRun, task: Task) -> int:
    """The most that is written at once: a result, and the state that an interruption leaves. What they
    replace is removed only afterwards.
    """
    trained = list(task.trained_tensors().values())
    saved = list(task.model.parameters()) if task.saves_model else trained
    dtype = dtype_of(run.saving.save_precision)
    result = sum(tensor.numel() * (dtype or tensor.dtype).itemsize for tensor in saved)
    state = sum(tensor.nbytes for tensor in trained)
    count = sum(parameter.numel() for parameter in task.parameters() if parameter.requires_grad)
    state += OPTIMIZER_BYTES * count + LEDGER_BYTES * min(count, PARTS * SAMPLE)
    if run.averaging.use_ema:
        state += AVERAGE_BYTES * sum(tensor.numel() for tensor in trained)
    return int((result + state) * HEADERS)
