"""What a tuned model changed, as a LoRA: the best of a rank for each layer, one layer in memory at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from library.console import activity, progress_bar
from library.models.base import AttachPoint, Part
from library.models.detection import check_source
from library.models.families import FAMILIES
from library.models.ldm.layers import ModelLayers, open_layers
from library.models.merging import find_device
from library.models.prediction import declared_prediction
from library.models.single_files import check_output, kept_metadata, size_of
from library.models.sources import Source
from library.models.weights import dtype_of, read_header
from library.network.building import CONV_PARENTS, LINEAR_PARENTS
from library.network.names import module_name
from library.network_tools.factors import Factors, decompose, squared_norm
from library.network_tools.writing import describe_sizes, lora_tensors, save_lora
from library.options.network_tools import ExtractNetworkOptions
from library.problems import Problems, UserError


@dataclass
class Extracted:
    """What was taken from the difference of two models. Energies are squared norms.

    modules: the change of each layer, by its name in network files.
    energy: of the whole difference in U-Net and text encoders.
    lost: of what the ranks could not hold, in layers that have a module.
    outside: of weights that no LoRA of this kind holds (biases, norms, embeddings, other layers).
    """

    modules: dict[str, Factors] = field(default_factory=dict)
    energy: float = 0.0
    lost: float = 0.0
    outside: float = 0.0


def extract_file(options: ExtractNetworkOptions) -> None:
    """Write the difference of two models as a LoRA and say what it does not hold."""
    problems = Problems()
    problems.attempt(check_output, options.save_to, [])
    sources = [
        problems.attempt(check_source, name, v2=options.v2, family="sdxl" if options.sdxl else None)
        for name in (options.model_org, options.model_tuned)
    ]
    device = problems.attempt(find_device, options.device)
    problems.raise_if_any()
    base, tuned = (open_layers(source) for source in sources if source is not None)
    assert device is not None
    check_same(base, tuned, options.model_tuned)
    found = extract(
        base,
        tuned,
        dim=options.dim,
        conv_dim=options.conv_dim,
        min_diff=options.min_diff,
        quantile=options.clamp_quantile,
        device=device,
    )
    if not found.modules:
        cause = f"no layer differs from {options.model_org} that a LoRA of these ranks holds"
        raise UserError.of(options.model_tuned, cause, "give --conv_dim, or other models")
    dtype = None if options.save_precision is None else dtype_of(options.save_precision)
    tensors = lora_tensors(found.modules, dtype)
    told = _metadata(options, tuned) | describe_sizes(tensors)
    with activity(f"saving {options.save_to}"):
        save_lora(options.save_to, tensors, told)
    _tell(options, found)


def extract(
    base: ModelLayers,
    tuned: ModelLayers,
    *,
    dim: int,
    conv_dim: int | None,
    min_diff: float = 0.0,
    quantile: float | None = None,
    device: torch.device | str = "cpu",
) -> Extracted:
    """The difference of two models of one structure.

    dim, conv_dim: ranks of linear layers and 1x1 convolutions, and of larger ones; None: they are left out,
    and with them the other layers of their blocks.
    min_diff: text encoders are left out unless a weight of any differs by more.
    quantile: at which values of a layer's factors are limited; None: they are not.
    """
    found, ranks = Extracted(), _ranks(base, dim, conv_dim)
    if not _text_differs(base, tuned, min_diff):
        ranks = {key: rank for key, rank in ranks.items() if key[0] == base.model.denoiser_part}
    points = base.points()
    for part, name in progress_bar(list(base.names()), desc="extracting", unit="tensor"):
        change = (tuned.read(part, name) - base.read(part, name)).to(device)
        energy = squared_norm(change)
        found.energy += energy
        rank = ranks.get((part, name))
        if rank is None:
            found.outside += energy
        elif energy:
            point = points[part, name]
            factors, lost = _best(_in_file_shape(point, change), rank, quantile)
            found.modules[module_name(point)] = factors
            found.lost += lost
    return found


def _best(change: Tensor, rank: int, quantile: float | None) -> tuple[Factors, float]:
    """The best factors of a change, and the squared norm of what they lack."""
    spectrum = decompose(change, rank)
    factors = spectrum.factors(rank)
    lost = spectrum.energy * spectrum.error(rank) ** 2
    if quantile is not None:
        factors = clamped(factors, quantile)
        lost = squared_norm(factors.weight() - change)
    return Factors(factors.up.cpu(), factors.down.cpu(), factors.shape), lost


def clamped(factors: Factors, quantile: float) -> Factors:
    """The factors with no value beyond the quantile of all their values, on either side of 0."""
    values = torch.cat([factors.up.flatten(), factors.down.flatten()]).sort().values
    place = quantile * (len(values) - 1)  # torch.quantile takes 16 million values at most
    low, high = values[int(place)], values[min(int(place) + 1, len(values) - 1)]
    limit = float(low + (high - low) * (place - int(place)))
    return Factors(factors.up.clamp(-limit, limit), factors.down.clamp(-limit, limit), factors.shape)


def check_same(base: ModelLayers, tuned: ModelLayers, name: str) -> None:
    """Raises UserError when two models differ in more than values. name: of the tuned one."""
    if base.family != tuned.family:
        titles = [FAMILIES[one.family].title for one in (tuned, base)]
        raise UserError.of(name, f"is an {titles[0]} model, the other one is {titles[1]}")
    for part, file in base.parts.items():
        theirs = tuned.parts[part].shapes
        for tensor, shape in file.shapes.items():
            if _sides(theirs.get(tensor, ())) != _sides(shape):
                cause = f"{tensor} of its {part} is {theirs.get(tensor)}, in the other model {shape}"
                raise UserError.of(name, cause, "extract from models of one structure")


def _ranks(base: ModelLayers, dim: int, conv_dim: int | None) -> dict[tuple[Part, str], int]:
    """The rank of each weight that gets a module."""
    parents = LINEAR_PARENTS if conv_dim is None else (*LINEAR_PARENTS, *CONV_PARENTS)
    found = {}
    for key, point in base.points().items():
        shape = base.parts[key[0]].shapes[key[1]]
        rank = conv_dim if _is_large(shape) else dim
        if point.parent in parents and rank is not None:
            found[key] = rank
    return found


def _text_differs(base: ModelLayers, tuned: ModelLayers, min_diff: float) -> bool:
    """Whether a weight that a LoRA changes differs in any text encoder by more than this."""
    keys = (key for key in base.points() if key[0] != base.model.denoiser_part)
    return any(float((tuned.read(*key) - base.read(*key)).abs().max()) > min_diff for key in keys)


def _in_file_shape(point: AttachPoint, change: Tensor) -> Tensor:
    return change[:, :, None, None] if point.is_1x1_in_files and change.ndim == 2 else change


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A weight's shape without the sides of a 1x1 kernel."""
    return shape[:2] if shape[2:] == (1, 1) else shape


def _is_large(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[2:] != (1, 1)


def _metadata(options: ExtractNetworkOptions, tuned: ModelLayers) -> dict[str, str]:
    family, source = FAMILIES[tuned.family], tuned.model.source
    assert isinstance(source, Source)
    predicts = declared_prediction(source) or ("v" if options.v_parameterization else "epsilon")
    told = {
        "ss_v2": str(family.flag == "--v2"),
        "ss_base_model_version": family.base_version(predicts),
    }
    header = {} if source.path.is_dir() else read_header(source.path).metadata
    return told if options.no_metadata else kept_metadata(header, options.save_to, [source.path]) | told


def _tell(options: ExtractNetworkOptions, found: Extracted) -> None:
    names = f"{options.model_tuned} - {options.model_org} -> {options.save_to} ({size_of(options.save_to)})"
    print(f"{names}: {len(found.modules)} modules")
    lost, outside = (energy / found.energy for energy in (found.lost, found.outside))
    print(f"of the squared norm of the change {lost:.2%} is beyond these ranks, and {outside:.2%} in weights")
    print("that this LoRA does not change: biases, norms, embeddings, layers without a module")
