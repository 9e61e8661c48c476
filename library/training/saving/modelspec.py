"""ModelSpec 1.0.1: the `modelspec.*` keys of every file, networks and checkpoints alike.

https://github.com/Stability-AI/ModelSpec. Keys and the forms of values are those that sd-scripts writes.
"""

from __future__ import annotations

import base64
import mimetypes
import time
from pathlib import Path
from typing import TYPE_CHECKING

from library import VERSION
from library.models import FAMILIES
from library.problems import UserError
from library.training.batches import BatchSource
from library.training.output import Moment
from library.training.run import TrainingRun

if TYPE_CHECKING:
    from library.training.tasks.task import Task

CHECKPOINT_IMPLEMENTATION = "https://github.com/Stability-AI/generative-models"
# Of results without a title, by the suffix of their architecture.
TITLES = {
    "": "Checkpoint",
    "inpaint": "Checkpoint",
    "lora": "LoRA",
    "textual-inversion": "TextualInversion",
    "controlnet": "ControlNet",
    "control-net-lllite": "ControlNetLLLite",
}


def describe_checkpoint(
    run: TrainingRun, task: Task, batches: BatchSource, moment: Moment, *, kind: str = ""
) -> dict[str, str]:
    """The modelspec keys of a file, and their values.

    kind: empty for a checkpoint, else the suffix of its architecture, a key of TITLES.
    """
    options, family = run.metadata, FAMILIES[task.model.family]
    low, high = run.objective.timestep_range
    has_range = run.objective.min_timestep is not None or run.objective.max_timestep is not None
    resolution = batches.resolution
    has_kind = bool(kind)
    if task.model.is_inpainting and not kind:
        kind = "inpaint"
    default_title = f"{TITLES[kind]}@{int(moment.started_at)}"
    facts = {
        "sai_model_spec": "1.0.1",
        "architecture": family.architecture(task.objective.prediction) + (f"/{kind}" if kind else ""),
        "implementation": family.implementation if has_kind else CHECKPOINT_IMPLEMENTATION,
        "implementation_version": f"atelier/{VERSION}",
        "title": options.metadata_title or run.saving.output_name or default_title,
        "resolution": f"{resolution[0]}x{resolution[1]}",
        "date": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "prediction_type": task.objective.prediction,
        "timestep_range": f"{low},{high}" if has_range else None,
        "encoder_layer": run.model.clip_skip,
        "author": options.metadata_author,
        "description": options.metadata_description,
        "license": options.metadata_license,
        "tags": options.metadata_tags,
        "usage_hint": options.metadata_usage_hint,
        "thumbnail": thumbnail_url(options.metadata_thumbnail),
        "merged_from": options.metadata_merged_from,
        "trigger_phrase": options.metadata_trigger_phrase,
        "preprocessor": options.metadata_preprocessor,
        "is_negative_embedding": options.metadata_is_negative_embedding,
    }
    return {f"modelspec.{key}": str(value) for key, value in facts.items() if value is not None}


def thumbnail_url(thumbnail: str | None) -> str | None:
    """A picture file as a data: URL; a URL stays as it is. Raises UserError if there is no such file."""
    if thumbnail is None or thumbnail.startswith(("data:", "http://", "https://")):
        return thumbnail
    path = Path(thumbnail)
    if not path.is_file():
        raise UserError.of("--metadata_thumbnail", f"there is no file {thumbnail}")
    kind = mimetypes.guess_type(path.name)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
