"""Everything that can be wrong with a run's inputs, found before anything is loaded and shown together."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from library.data.training_data import TrainingData
from library.files import check_writable
from library.generation.prompts import read_prompts
from library.models import check_source, check_vae
from library.models.attention import check_attention
from library.network_module import load_network_module
from library.options.data import DataOptions
from library.options.fields import sections_of
from library.options.generation import PreviewOptions
from library.options.model import ModelOptions
from library.options.network import NetworkOptions
from library.options.optimizer import OptimizerOptions
from library.options.parser import Reading
from library.options.saving import MetadataOptions, SavingOptions
from library.problems import Problems, UserError
from library.training.metadata import thumbnail_url
from library.training.optimizers import find_optimizer, parse_optimizer_args
from library.training.run import TrainingRun
from library.training.settings import check_resumed
from library.training.state import read_state_info

R = TypeVar("R", bound=TrainingRun)

OTHER_FOLDER = "choose another --output_dir"
SMALLEST_FREE_SPACE = 64 * 2**20  # bytes; a LoRA and its state need about this much


def check(reading: Reading[R], family: str | None = None) -> tuple[R, TrainingData]:
    """The run of a command line, and its scanned data.

    family: the only one that the command trains, by its name in FAMILIES; None: any.
    Raises UserError with all problems of the options and of the files they name.
    """
    problems = Problems(reading.problems)
    data = None
    for section in reading.sections.values():
        if isinstance(section, DataOptions):
            data = problems.attempt(
                TrainingData.scan,
                section,
                reading.sections.get("caching"),
                validation=reading.sections.get("validation"),
                has_network=NetworkOptions in sections_of(reading.run_type).values(),
            )
        elif isinstance(section, ModelOptions):
            problems.attempt(_check_model, section, family)
        elif type(section) in CHECKS:
            problems.attempt(CHECKS[type(section)], section)
    if data is not None and not reading.problems:
        problems.attempt(check_resumed, reading.run, data)
    problems.raise_if_any()
    assert data is not None
    return reading.run, data


def _check_model(options: ModelOptions, family: str | None) -> None:
    problems = Problems()
    assert options.pretrained_model_name_or_path is not None
    problems.attempt(
        check_source,
        options.pretrained_model_name_or_path,
        v2=options.v2,
        v_parameterization=options.v_parameterization,
        family=family,
    )
    if options.vae is not None:
        problems.attempt(check_vae, options.vae)
    problems.attempt(check_attention, options.attention)
    problems.raise_if_any()


def _check_optimizer(options: OptimizerOptions) -> None:
    problems = Problems()
    problems.attempt(find_optimizer, options.optimizer_name)
    problems.attempt(parse_optimizer_args, options.optimizer_args)
    problems.raise_if_any()


def _check_saving(options: SavingOptions) -> None:
    problems = Problems()
    if options.resume is not None:
        problems.attempt(read_state_info, options.resume)
    assert options.output_dir is not None
    problems.attempt(_check_output_dir, options.output_dir)
    problems.raise_if_any()


def _check_output_dir(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError.of(folder, f"cannot be made ({error.strerror})", OTHER_FOLDER) from None
    check_writable(folder, OTHER_FOLDER)
    free = shutil.disk_usage(folder).free
    if free < SMALLEST_FREE_SPACE:
        raise UserError.of(folder, f"has only {free / 2**20:.0f} MB free", f"make room or {OTHER_FOLDER}")


def _check_preview(options: PreviewOptions) -> None:
    if options.sample_prompts is not None:
        read_prompts(options.sample_prompts)


def _check_network(options: NetworkOptions) -> None:
    problems = Problems()
    assert options.network_module is not None
    module = problems.attempt(load_network_module, options.network_module)
    if module is not None:
        problems.attempt(module.check_arguments, options.arguments)
    for path in filter(None, (options.network_weights, *options.base_weights)):
        if not path.is_file():
            problems.add(path, "there is no such file of network weights")
    problems.raise_if_any()


def _check_metadata(options: MetadataOptions) -> None:
    thumbnail_url(options.metadata_thumbnail)


CHECKS: Mapping[type, Any] = {
    OptimizerOptions: _check_optimizer,
    SavingOptions: _check_saving,
    PreviewOptions: _check_preview,
    MetadataOptions: _check_metadata,
    NetworkOptions: _check_network,
}
