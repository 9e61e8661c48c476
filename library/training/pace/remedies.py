"""What a run could do against a full card or a slow loader, the cheapest first."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from library.training.pace.findings import Remedies

if TYPE_CHECKING:
    from library.training.run import TrainingRun


def remedies_for(run: TrainingRun) -> Remedies:
    """The remedies that are still open to a run."""
    return Remedies(memory=_memory(run), data=_data(run), program=sys.executable)


def _memory(run: TrainingRun) -> str:
    training, caching = run.training, run.caching
    choices = (
        (not caching.caches_latents, "--cache_latents"),
        (training.mixed_precision == "no", "--mixed_precision bf16"),
        (not training.gradient_checkpointing, "--gradient_checkpointing"),
        ("8bit" not in run.optimizer.optimizer_name.lower(), "--optimizer_type AdamW8bit"),
    )
    first = next((option for is_open, option in choices if is_open), "a smaller --resolution")
    return f"stop it (Ctrl-C keeps its state) and go on with {first} or a smaller batch"


def _data(run: TrainingRun) -> str:
    workers, cores = run.data.max_data_loader_n_workers, os.cpu_count() or 1
    if not run.caching.caches_latents:
        return "--cache_latents_to_disk reads each picture once"
    if workers < cores:
        return f"more --max_data_loader_n_workers (now {workers}, this machine has {cores} cores)"
    return "put the pictures on a faster drive"
