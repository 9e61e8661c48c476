"""Everything that can be wrong with a run's inputs, found before anything is loaded and shown together."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any, TypeVar

from library.data.training_data import TrainingData
from library.files import prepare_folder
from library.generation.prompt_options import training_syntax
from library.generation.prompts import read_prompts
from library.models import check_source, check_vae
from library.models.attention import check_attention
from library.network.loading import load_network_module
from library.options.data import DataOptions
from library.options.fields import sections_of
from library.options.generation import PreviewOptions
from library.options.hub import HubOptions
from library.options.logging import LoggingOptions
from library.options.model import ModelOptions
from library.options.network import NetworkOptions
from library.options.optimizer import OptimizerOptions
from library.options.parser import Reading
from library.options.saving import MetadataOptions, SavingOptions
from library.options.schedule import ScheduleOptions
from library.options.training import TrainingOptions
from library.problems import Problems
from library.training.optimization.optimizers import check_optimizer
from library.training.position import read_state_info
from library.training.run import TrainingRun
from library.training.saving.hub import check_hub, check_state_on_hub, state_from_hub
from library.training.saving.modelspec import thumbnail_url
from library.training.saving.settings import check_resumed
from library.training.watching.tracking import check_logging

R = TypeVar("R", bound=TrainingRun)


def check(reading: Reading[R], family: str | None = None) -> tuple[R, TrainingData]:
    """The run of a command line, and its scanned data.

    family: the only one that the command trains, by its name in FAMILIES; None: any.
    Raises UserError with all problems of the options and of the files they name.
    """
    problems = Problems(reading.problems)
    data, training = None, reading.sections.get("training")
    is_dry = isinstance(training, TrainingOptions) and training.dry_run
    for section in reading.sections.values():
        if isinstance(section, DataOptions):
            data = problems.attempt(
                TrainingData.scan,
                section,
                reading.sections.get("caching"),
                validation=reading.sections.get("validation"),
                has_network=NetworkOptions in sections_of(reading.run_type).values(),
                writes=not is_dry,
            )
        elif isinstance(section, SavingOptions):
            problems.attempt(_check_saving, section, is_dry)
        elif isinstance(section, ModelOptions):
            problems.attempt(_check_model, section, family)
        elif isinstance(section, OptimizerOptions):
            schedule = reading.sections.get("schedule", ScheduleOptions())
            problems.attempt(check_optimizer, section, schedule)
        elif type(section) in CHECKS:
            problems.attempt(CHECKS[type(section)], section)
    problems.attempt(_check_resume, reading, problems)
    problems.raise_if_any()
    assert data is not None
    run = reading.run
    check_resumed(run, data)
    return run, data


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


def _check_resume(reading: Reading, problems: Problems) -> None:
    """The state to go on from. One on the hub is downloaded, unless there are problems, and takes its place
    in the reading.
    """
    saving, hub = reading.sections.get("saving"), reading.sections.get("hub")
    if saving is None or hub is None or saving.resume is None:
        return
    if hub.resume_from_huggingface:
        place, token = saving.resume.as_posix(), hub.huggingface_token
        check_state_on_hub(place, token)
        if problems.found:
            return
        saving = copy(saving)
        object.__setattr__(saving, "resume", state_from_hub(place, token))  # replace() would warn again
        reading.sections["saving"] = saving
    read_state_info(saving.resume)


def _check_saving(options: SavingOptions, is_dry: bool) -> None:
    assert options.output_dir is not None
    prepare_folder(options.output_dir, "choose another --output_dir", make=not is_dry)


def _check_preview(options: PreviewOptions) -> None:
    if options.sample_prompts is not None:
        read_prompts(options.sample_prompts, training_syntax(1))  # for its problems, whatever the sizes


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
    LoggingOptions: check_logging,
    HubOptions: check_hub,
    PreviewOptions: _check_preview,
    MetadataOptions: _check_metadata,
    NetworkOptions: _check_network,
}
