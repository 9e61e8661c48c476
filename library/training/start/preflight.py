"""Everything that can be wrong with a run's inputs, found before anything is loaded and shown together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, TypeVar

from library.console import is_first_process
from library.data.training_data import TrainingData
from library.files import prepare_folder, restore_folder
from library.generation.hints import check_hints
from library.generation.prompt_options import training_syntax
from library.generation.prompts import read_prompts
from library.generation.repainting import check_originals
from library.latent_space import LatentSpace
from library.models import FAMILIES, Family, check_source, check_vae, detect_family
from library.models.attention import warn_of_missing
from library.models.detection import is_inpainting
from library.models.embeddings import find_embeddings
from library.models.ldm.control_files import check_control
from library.models.sources import find_source
from library.network.loading import check_network_file, load_network_module
from library.options.control import ControlNetOptions
from library.options.data import DataOptions
from library.options.fields import sections_of
from library.options.generation import PreviewOptions
from library.options.hub import HubOptions
from library.options.lllite import MODULE as LLLITE
from library.options.lllite import LLLiteOptions
from library.options.logging import LoggingOptions
from library.options.model import ModelOptions
from library.options.network import NetworkOptions
from library.options.optimizer import OptimizerOptions
from library.options.parser import Reading
from library.options.preservation import PreservationOptions
from library.options.saving import CheckpointOptions, MetadataOptions, SavingOptions
from library.options.schedule import ScheduleOptions
from library.options.sliders import SliderNetworkOptions
from library.options.training import TrainingOptions
from library.options.words import WordOptions
from library.problems import Problem, Problems, UserError, warn
from library.training.batches import BatchSource
from library.training.optimization.optimizers import check_optimizer
from library.training.position import read_state_info
from library.training.processes import is_main_process
from library.training.run import TrainingRun
from library.training.saving.hub import check_hub, check_state_on_hub, state_from_hub
from library.training.saving.manifest import check_manifest
from library.training.saving.modelspec import thumbnail_url
from library.training.saving.settings import check_resumed
from library.training.start.captioned_words import check_captions
from library.training.start.outputs import lock_on_results
from library.training.start.pictures import Pictures
from library.training.start.preserved_words import check_preservation
from library.training.watching.tracking import check_logging

R = TypeVar("R", bound=TrainingRun)
B = TypeVar("B", bound=BatchSource)
MakeBatches = Callable[[Reading[Any], LatentSpace], B]


def check(reading: Reading[R], make_batches: MakeBatches[B], family: str | None = None) -> tuple[R, B]:
    """The run of a command line, and what it trains on.

    make_batches: makes that from the reading and the model's latents, e.g. `scan_pictures`.
    family: the only one that the command trains, by its name in FAMILIES; None: any.
    Raises UserError with all problems of the options and of the files they name.
    """
    problems, batches = Problems(reading.problems), None
    # The model comes first, as the data is checked against its latents; its problems keep their place.
    model_problems, found = _check_model(reading.sections.get("model"), family)
    if not model_problems:
        _tell_of_first_layer(reading)
    for section in reading.sections.values():
        if isinstance(section, DataOptions):
            batches = problems.attempt(make_batches, reading, found.latent_space)
        elif isinstance(section, SavingOptions):
            problems.attempt(_check_saving, section, _is_dry(reading))
        elif isinstance(section, ModelOptions):
            problems.found.extend(model_problems)
        elif isinstance(section, OptimizerOptions):
            schedule = reading.sections.get("schedule", ScheduleOptions())
            problems.attempt(check_optimizer, section, schedule)
        elif isinstance(section, PreviewOptions):
            told = _uses_hints(reading), _trains_network(reading)
            problems.attempt(_check_preview, section, *told)
        elif type(section) in CHECKS:
            problems.attempt(CHECKS[type(section)], section)
    problems.attempt(_check_resume, reading, problems)
    problems.raise_if_any()
    assert batches is not None
    run = reading.run  # once: it warns when it is made
    check_resumed(run, batches)
    return run, batches


def scan_pictures(reading: Reading[R], latent_space: LatentSpace) -> Pictures:
    """The pictures and captions that a command line names, for a model with these latents. Raises UserError
    with everything that is wrong with them.
    """
    sections = reading.sections
    data = TrainingData.scan(
        sections["data"],
        sections.get("caching"),
        latent_space=latent_space,
        validation=sections.get("validation"),
        has_network=NetworkOptions in sections_of(reading.run_type).values(),
        paints_anew=_paints_anew(sections.get("model")),
        writes=not _is_dry(reading),
    )
    words = sections.get("words")
    if isinstance(words, WordOptions):
        check_captions(data, words)
    preservation = sections.get("preservation")
    if isinstance(preservation, PreservationOptions):
        check_preservation(data, preservation, sections["caching"])
    return Pictures(data)


def _paints_anew(options: ModelOptions | None) -> bool:
    """Whether an inpainting model is trained; yes where the model cannot be used, which is told elsewhere."""
    if options is None or options.train_inpainting:
        return True
    try:
        return is_inpainting(find_source(options.pretrained_model_name_or_path))
    except UserError:
        return True


def _uses_hints(reading: Reading[R]) -> bool:
    """Whether what is trained looks at pictures beside the prompt."""
    data = sections_of(reading.run_type)["data"]
    return issubclass(data, DataOptions) and data.needs_hints


def _trains_network(reading: Reading[R]) -> bool:
    """Whether a network is trained, whose strength prompts may choose."""
    kinds = sections_of(reading.run_type).values()
    return any(issubclass(kind, (NetworkOptions, LLLiteOptions)) for kind in kinds)


def _is_dry(reading: Reading[R]) -> bool:
    """Whether nothing may be written."""
    training = reading.sections.get("training")
    return isinstance(training, TrainingOptions) and training.dry_run


def _check_model(options: ModelOptions | None, family: str | None) -> tuple[list[Problem], Family]:
    """What is wrong with the model, and its family; the first one when the model cannot be used."""
    problems, found = Problems(), next(iter(FAMILIES.values()))
    if options is None:
        return [], found
    source = problems.attempt(
        check_source,
        options.pretrained_model_name_or_path,
        v2=options.v2,
        v_parameterization=options.v_parameterization,
        family=family,
    )
    if source is not None:
        found = FAMILIES[detect_family(source)]
    if options.vae is not None:
        problems.attempt(check_vae, options.vae)
    for path in options.embeddings:
        problems.attempt(find_embeddings, path)
    warn_of_missing(options.attention)
    return problems.found, found


def _tell_of_first_layer(reading: Reading[Any]) -> None:
    """Warn where the layer that is to look at masks is made of zeros and is not trained."""
    options = reading.sections.get("model")
    if not isinstance(options, ModelOptions) or not options.train_inpainting:
        return
    trains_model = CheckpointOptions in sections_of(reading.run_type).values()
    if not trains_model and not is_inpainting(find_source(options.pretrained_model_name_or_path)):
        warn(
            f"--train_inpainting: {options.pretrained_model_name_or_path} is a text-to-image model, and this "
            "command leaves its first layer as it is: masks have no effect on what is learned; begin with an "
            "inpainting model"
        )


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
    restore_folder(saving.resume)
    # One process of each machine is enough: the others end with it.
    if not saving.skip_state_check and is_first_process():
        check_manifest(saving.resume)
    read_state_info(saving.resume)


def _check_saving(options: SavingOptions, is_dry: bool) -> None:
    prepare_folder(options.output_dir, "choose another --output_dir", make=not is_dry)
    with lock_on_results(options, writes=not is_dry and is_main_process()):
        pass  # the run takes it again, once its model is there


def _check_preview(options: PreviewOptions, uses_hints: bool, trains_network: bool) -> None:
    if options.sample_prompts is None:
        return
    # For its problems, whatever the sizes.
    requests = read_prompts(options.sample_prompts, training_syntax(1))
    if uses_hints:
        check_hints(requests)
    elif any(request.hints for request in requests):
        warn(f"{options.sample_prompts}: --cn has no effect: nothing that is trained here looks at it")
    if not trains_network and any(request.strengths for request in requests):
        warn(f"{options.sample_prompts}: --am has no effect: no network is trained here")
    check_originals(requests)


def _check_network(options: NetworkOptions) -> None:
    if options.network_module == LLLITE:
        cause = f"{LLLITE} is trained with a conditioning image for each image"
        fix = "use train_control_net_lllite.py, for SDXL sdxl_train_control_net_lllite.py"
        raise UserError.of("--network_module", cause, fix)
    problems = Problems()
    module = problems.attempt(load_network_module, options.network_module)
    if module is not None:
        problems.attempt(module.check_arguments, options.arguments)
    for path in filter(None, (options.network_weights, *options.base_weights)):
        problems.attempt(check_network_file, path, options.network_module)
    problems.raise_if_any()


def _check_control(options: ControlNetOptions) -> None:
    if options.controlnet_model_name_or_path is not None:
        check_control(options.controlnet_model_name_or_path)


def _check_lllite(options: LLLiteOptions) -> None:
    if options.network_weights is not None:
        check_network_file(options.network_weights, kind="lllite")


def _check_metadata(options: MetadataOptions) -> None:
    thumbnail_url(options.metadata_thumbnail)


CHECKS: Mapping[type, Any] = {
    LoggingOptions: check_logging,
    HubOptions: check_hub,
    MetadataOptions: _check_metadata,
    NetworkOptions: _check_network,
    ControlNetOptions: _check_control,
    SliderNetworkOptions: _check_network,
    LLLiteOptions: _check_lllite,
}
