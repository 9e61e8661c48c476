"""Caches filled without training, as the training would fill them."""

from __future__ import annotations

from torch import nn

from library.console import activity
from library.models import detect_family
from library.models.sources import find_source
from library.problems import UserError, warn
from library.training.pace.limit import limit_memory
from library.training.session import Session, open_model
from library.training.start.caching_runs import CachingRun
from library.training.start.pictures import Pictures
from library.training.start.precision import set_precision
from library.training.tasks.model import ModelTask


class _Frozen(ModelTask):
    """A model of which nothing is trained and nothing saved."""

    saves_model = False


def fill_caches_alone(run: CachingRun, pictures: Pictures, *, is_sdxl: bool = False) -> None:
    """Fill the caches on disk that the run asks for. Several processes share the work.

    is_sdxl: whether the model must be SDXL.
    Raises UserError with every image that cannot be used.
    """
    if is_sdxl:
        _check_sdxl(run.model.pretrained_model_name_or_path)
    session = Session.start(run.training, run.processes, None)
    model = open_model(run.model, session)
    for line in pictures.summary():
        session.say(line)
    for line in pictures.warnings():
        warn(line)
    if run.training.dry_run:
        return
    with activity("hashing the weights, by which cache files are told apart"):
        pictures.identify(model, run)  # as they were read
    task = _Frozen(model, run.objective, learning_rate=0.0)
    set_precision(
        task,
        session.frozen_dtype,
        no_half_vae=run.model.no_half_vae,
        float8=[part for part in run.model.float8_parts if part == "te"],
    )
    task.use_attention(run.model.attention)
    limit_memory(session.device, run.training.allow_shared_memory)
    parts = (model.vae,) if run.caching.caches_latents else (model.text_encoders,)
    for part in parts:
        nn.Module.to(part, session.device)
    pictures.fill_caches(model, run, session)
    session.accelerator.end_training()


def _check_sdxl(name: str) -> None:
    family = detect_family(find_source(name))
    if family != "sdxl":
        raise UserError.of("--sdxl", f"{name} is a model of the family {family}", "leave it out")
