"""The chapters of a generator command before drawing.py: check everything, load the model.

No torch is imported before `load`, unless networks or xformers are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from library.generation.defaults import defaults_of, section_of, usual_gradual, usual_shrink
from library.generation.hints import check_hints, with_hints
from library.generation.large_checks import check_large
from library.generation.networks import check_networks, finder, merged_for_now, open_networks
from library.generation.plan import plan_pictures, seeds_of
from library.generation.prompt_options import PromptSyntax, generator_syntax
from library.generation.prompts import parse_prompt, read_prompts
from library.generation.repainting import (
    check_originals,
    prompts_of_pictures,
    with_originals,
    with_sizes,
)
from library.generation.request import PromptRequest
from library.models import FAMILIES, Family, check_source, check_vae, detect_family, load_model
from library.models.detection import is_inpainting
from library.models.embeddings import add_embeddings, find_embeddings
from library.models.layer_embeddings import add_layer_embeddings, find_layer_embedding
from library.models.ldm.control_files import check_control
from library.models.sources import find_source
from library.network.loading import check_network_file
from library.options.drawing_large import LargePictureOptions
from library.options.drawing_networks import GeneratorNetworkUseOptions
from library.options.drawing_originals import OriginalOptions
from library.options.drawing_prompts import GeneratorOrderOptions
from library.options.generation import (
    GenerationOptions,
    GeneratorComputeOptions,
    GeneratorControlOptions,
    GeneratorModelOptions,
    GeneratorNetworkOptions,
    GeneratorPromptOptions,
)
from library.options.model import Attention
from library.options.parser import Reading
from library.problems import Problems, UserError, warn, warn_idle

if TYPE_CHECKING:
    import torch

    from library.generation.strengths import NetworksInUse
    from library.models.base import Model
    from library.models.condition import Control

R = TypeVar("R")
S = TypeVar("S")


def check(reading: Reading[R], *, family: str | None = None) -> list[PromptRequest]:
    """The pictures that a command line asks for, each with its seed. Its Run has gen_img.py's sections.

    family: the only one that the command draws with, by its name in FAMILIES; None: any.
    Raises UserError with every problem of the options, the files they name and the prompts.
    """
    problems, sections = Problems(reading.problems), reading.sections
    model = section_of(sections, GeneratorModelOptions)
    if model is not None:
        _check_model(model, family, problems)
    compute = section_of(sections, GeneratorComputeOptions)
    if compute is not None and compute.xformers:
        from library.models.attention import warn_of_missing

        warn_of_missing("xformers")
    networks = section_of(sections, GeneratorNetworkOptions)
    if networks is not None:
        check_networks(networks, section_of(sections, GeneratorNetworkUseOptions), problems)
    control = section_of(sections, GeneratorControlOptions)
    if control is not None:
        _check_control(control, problems)
    texts, pictures = section_of(sections, GeneratorPromptOptions), section_of(sections, GenerationOptions)
    prompts = None
    if texts is not None:
        found = family_of(model)
        find = problems.attempt(finder, section_of(sections, GeneratorNetworkUseOptions))
        large = section_of(sections, LargePictureOptions) or LargePictureOptions()
        syntax = generator_syntax(
            found.latent_space.pixel_multiple,
            find,
            shrink=usual_shrink(large),
            gradual=usual_gradual(large),
        )
        originals = section_of(sections, OriginalOptions)
        defaults = problems.attempt(defaults_of, sections) or PromptRequest("")
        prompts = problems.attempt(_read_prompts, texts, syntax, defaults, originals)
        if prompts is not None and control is not None:
            takes_hints = bool(control.models or networks is None or networks.network_weights)
            prompts = problems.attempt(_with_hints, prompts, control, takes_hints)
        if prompts is not None and originals is not None:
            prompts = problems.attempt(_with_originals, prompts, originals, model, found.side)
    planned = None
    if pictures is not None:
        _check_folder(pictures.outdir, problems)
        order = section_of(sections, GeneratorOrderOptions)
        planned = problems.attempt(_plan, prompts or [], pictures, order)
        if planned is not None and texts is not None:
            problems.attempt(_check_large, planned, family_of(model), control, model)
        for path in dict.fromkeys(one.path for request in planned or [] for one in request.networks):
            problems.attempt(check_network_file, path)
    problems.raise_if_any()
    assert planned is not None
    return planned


def family_of(options: GeneratorModelOptions | None) -> Family:
    """The model's family. If the model cannot be read, which `check` reports, the first there is."""
    if options is not None:
        with suppress(UserError):
            return FAMILIES[detect_family(options.ckpt)]
    return next(iter(FAMILIES.values()))


def _check_model(options: GeneratorModelOptions, family: str | None, problems: Problems) -> None:
    problems.attempt(
        check_source,
        options.ckpt,
        v1=options.v1,
        v2=options.v2,
        sdxl=options.sdxl,
        v_parameterization=options.v_parameterization,
        family=family,
    )
    if options.vae:
        problems.attempt(check_vae, options.vae)
    for path in options.textual_inversion_embeddings:
        problems.attempt(find_embeddings, path)
    for path in options.XTI_embeddings:
        problems.attempt(find_layer_embedding, path)


def _check_control(options: GeneratorControlOptions, problems: Problems) -> None:
    for path in options.control_net_models:
        problems.attempt(check_control, path)
    for path in options.control_net_lllite_models:
        problems.attempt(check_network_file, path, kind="lllite")


def _check_folder(outdir: Path, problems: Problems) -> None:
    if outdir.exists() and not outdir.is_dir():
        problems.add(outdir, "is a file, not a folder", "choose another --outdir")


def _read_prompts(
    options: GeneratorPromptOptions,
    syntax: PromptSyntax,
    defaults: PromptRequest,
    originals: OriginalOptions | None,
) -> list[PromptRequest]:
    if options.from_file:
        return read_prompts(options.from_file, syntax, defaults=defaults)
    if options.prompt is None:
        if originals is not None and originals.image_path is not None:
            return prompts_of_pictures(originals.image_path, defaults)
        raise UserError.of(
            "--prompt",
            "there is nothing to draw",
            "give --prompt, --from_file or, with its text, --image_path",
        )
    return [parse_prompt(options.prompt, syntax, where="--prompt", defaults=defaults)]


def _plan(
    prompts: Sequence[PromptRequest], options: GenerationOptions, order: GeneratorOrderOptions | None
) -> list[PromptRequest]:
    count = options.n_iter * options.images_per_prompt
    for prompt in prompts:
        seeds = len(seeds_of(prompt))
        if seeds > count:
            text = repr(prompt.prompt[:40])
            warn(f"--d of {text} has {seeds} seeds for {count} pictures; see --images_per_prompt")
    return plan_pictures(
        prompts,
        seed=options.seed,
        n_iter=options.n_iter,
        images_per_prompt=options.images_per_prompt,
        order=order,
    )


def _with_hints(
    prompts: Sequence[PromptRequest], options: GeneratorControlOptions, takes_hints: bool
) -> list[PromptRequest]:
    """The prompts with their pictures. takes_hints: whether there is a network that may look at them."""
    given, models = options.guide_image_path, options.models
    requests = with_hints(prompts, given, len(models)) if given else list(prompts)
    if models and not any(request.hints for request in requests):
        cause = "no prompt has a picture to show"
        name = "control_net_models" if options.control_net_models else "control_net_lllite_models"
        raise UserError.of(f"--{name}", cause, "give --guide_image_path, or --cn in prompts")
    if not takes_hints and any(request.hints for request in requests):
        warn_idle("--guide_image_path", "and --cn of prompts without a ControlNet")
    check_hints(requests)
    return requests


def _with_originals(
    prompts: Sequence[PromptRequest],
    options: OriginalOptions,
    model: GeneratorModelOptions | None,
    side: int,
) -> list[PromptRequest]:
    """The prompts with the pictures that are begun with or painted on, and with their sizes."""
    requests = with_originals(prompts, options)
    has_pictures = any(request.image is not None for request in requests)
    if options.strength is not None and not has_pictures:
        warn_idle("--strength", "without --image_path")
    needs_masks = has_pictures and model is not None and is_inpainting(find_source(model.ckpt))
    check_originals(requests, needs_masks=needs_masks)
    return with_sizes(requests, side)


def _check_large(
    requests: Sequence[PromptRequest],
    family: Family,
    control: GeneratorControlOptions | None,
    model: GeneratorModelOptions | None,
) -> None:
    has_lllites = control is not None and bool(control.control_net_lllite_models)
    paints_anew = model is not None and is_inpainting(find_source(model.ckpt))
    check_large(requests, family.network, has_lllites=has_lllites, is_inpainting=paints_anew)


def load(
    options: GeneratorModelOptions,
    compute: GeneratorComputeOptions,
    networks: GeneratorNetworkOptions,
    use: GeneratorNetworkUseOptions | None = None,
    named: Iterable[Path] = (),
) -> tuple[Model, NetworksInUse]:
    """The model with its networks, on this machine's device, in eval mode.

    The VAE stays in float32: in float16 some VAEs give black pictures, and bfloat16 shows in smooth areas.
    Networks are merged before weights are cast, so that nothing is rounded twice.

    named: the files of networks that prompts name.
    """
    import torch

    use = use or GeneratorNetworkUseOptions()
    model = load_model(options.ckpt, vae=options.vae, v_parameterization=options.v_parameterization)
    model.check_clip_skip(options.clip_skip)
    add_embeddings(model, options.textual_inversion_embeddings)
    add_layer_embeddings(model, options.XTI_embeddings)
    model.use_attention("xformers" if compute.xformers else "sdpa")
    device, dtype = choose_device(), getattr(torch, compute.dtype_name)
    found = open_networks(model, networks, use, named, (device, dtype))
    # In a ModuleList, since diffusers warns if its own modules are cast directly.
    torch.nn.ModuleList([model.denoiser, *model.text_encoders]).to(dtype)
    model.to(device).eval()
    return model, merged_for_now(found) if use.network_pre_calc and found.given else found


def load_control_nets(
    model: Model, options: GeneratorControlOptions, compute: GeneratorComputeOptions
) -> Control | None:
    """The ControlNets beside the model; None without any. LLLites are attached to it."""
    import torch

    from library.generation.control import attach_lllites, open_controls

    attach_lllites(options, model, dtype=getattr(torch, compute.dtype_name))
    kind: Attention = "xformers" if compute.xformers else "sdpa"
    return open_controls(options, model, attention=kind, dtype=getattr(torch, compute.dtype_name))


def choose_device() -> torch.device:
    """CUDA, else Apple's GPU, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
