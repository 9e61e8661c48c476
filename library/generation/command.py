"""The chapters of a generator command before drawing.py: check everything, load the model.

No torch is imported before `load`, unless networks or xformers are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from library.generation.asked import check_large_pictures, family_of, planned, prompts_of
from library.generation.defaults import section_of
from library.generation.networks import check_networks, merged_for_now, open_networks
from library.generation.request import PromptRequest
from library.models import check_source, check_vae, load_model
from library.models.embeddings import add_embeddings, find_embeddings
from library.models.layer_embeddings import add_layer_embeddings, find_layer_embedding
from library.models.ldm.control_files import check_control
from library.network.loading import check_network_file
from library.options.drawing_networks import GeneratorNetworkUseOptions
from library.options.drawing_prompts import GeneratorOrderOptions, GeneratorSourceOptions
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
from library.problems import Problems

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
        sources = section_of(sections, GeneratorSourceOptions) or GeneratorSourceOptions()
        prompts = problems.attempt(prompts_of, sections, texts, sources)
    found = None
    if pictures is not None:
        _check_folder(pictures.outdir, problems)
        order = section_of(sections, GeneratorOrderOptions)
        found = problems.attempt(planned, prompts or [], pictures, order)
    if found is not None:
        problems.attempt(check_large_pictures, found, family_of(model), control, model)
        for path in dict.fromkeys(one.path for request in found for one in request.networks):
            problems.attempt(check_network_file, path)
    problems.raise_if_any()
    assert found is not None
    return found


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


class Loaded(NamedTuple):
    """What draws: a model, on the device and in eval mode, and what is beside it."""

    model: Model
    networks: NetworksInUse
    control: Control | None


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
