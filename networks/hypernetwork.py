"""A hypernetwork: small nets that change what keys and values of the attention are made of.

    context -> context + m * net(context), before to_k and before to_v, in self- and cross-attention

There are two nets for each width of a context in the U-Net, shared by all its blocks: of SD 1.x 768 (the
text), 320, 640 and 1280. Files are AUTOMATIC1111's, see `library/network/hypernetwork_files.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from library.models.base import AttachPoint, Model
from library.models.saving import Saving
from library.network.arguments import READERS, switch
from library.network.block_arguments import read_own_values
from library.network.block_building import warn_of_idle_alpha
from library.network.hypernetwork_files import (
    Net,
    Structure,
    dropouts,
    read_hypernetwork,
    write_hypernetwork,
)
from library.network.matching import check_names
from library.network.module import NetworkModule
from library.network.network import Network
from library.problems import UserError, warn
from library.randomness import keyed_generator

MODULE = "networks.hypernetwork"
HALVES = ("k", "v")  # in the order of files
ENDS = {f".{attention}.to_{half}": half for attention in ("attn1", "attn2") for half in HALVES}
NOT_OF_NETS = dict.fromkeys(READERS, "its nets are shared by all blocks and have no rank")
# By AUTOMATIC1111's names: the lower-case names of torch's classes, and two of its own.
ACTIVATIONS: Mapping[str, type[nn.Module] | None] = {
    "linear": None,
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,
    "elu": nn.ELU,
    "swish": nn.Hardswish,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softsign": nn.Softsign,
    "mish": nn.Mish,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "selu": nn.SELU,
    "celu": nn.CELU,
    "relu6": nn.ReLU6,
    "hardtanh": nn.Hardtanh,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
    "hardshrink": nn.Hardshrink,
    "softshrink": nn.Softshrink,
    "tanhshrink": nn.Tanhshrink,
    "logsigmoid": nn.LogSigmoid,
    "softplus": nn.Softplus,
}


@dataclass(frozen=True)
class HypernetworkArguments:
    """What --network_args ask for; see Structure.

    weight_initialization: of the hidden layers: Normal, XavierUniform, XavierNormal, KaimingUniform or
    KaimingNormal. The last layer starts at zero, so that a new hypernetwork changes nothing.
    """

    layer_structure: tuple[float, ...] = (1, 2, 1)
    activation_func: str = "linear"
    is_layer_norm: bool = False
    activate_output: bool = False
    weight_initialization: str = "Normal"

    def structure(self, dropout: float) -> Structure:
        """How the nets are built."""
        return Structure(
            self.layer_structure,
            self.activation_func,
            self.is_layer_norm,
            self.activate_output,
            dropouts(self.layer_structure, dropout) if dropout else None,
        )


class HypernetworkModule(NetworkModule):
    """A net before all layers of one width that make keys, or of those that make values."""

    stands = "before"
    why_not_merged = "a hypernetwork changes what layers are given, which no weight can hold"

    def __init__(self, *points: AttachPoint, structure: Structure, initialization: str = "Normal") -> None:
        super().__init__(*points)
        self.initialization, self.activation = initialization, structure.activation_func
        self.linear = nn.Sequential(*_layers(self.weight_shape[1], structure))

    def initialize(self, generator: torch.Generator) -> None:
        layers = [layer for layer in self.linear if isinstance(layer, nn.Linear)]
        init = _INITIALIZATIONS[self.initialization]
        slope = "leaky_relu" if self.activation == "leakyrelu" else "relu"
        for layer in layers:
            init(layer.weight, slope, generator)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(layers[-1].weight)

    def change_input(self, x: Tensor) -> Tensor:
        return torch.add(x, self.linear(x), alpha=self.multiplier)


class Hypernetwork(Network):
    """The nets of all widths. Modules are called `768_k`, `768_v` and so on."""

    def __init__(self, modules: Mapping[str, NetworkModule], structure: Structure, model: Model) -> None:
        super().__init__(modules, dim=None, alpha=None, model=model)
        self.structure = structure

    def load_file(self, path: Path, model: Model) -> None:
        nets, structure = read_hypernetwork(path)
        if _built(structure) != _built(self.structure):
            cause = f"is built as {_built(structure)}, this network as {_built(self.structure)}"
            raise UserError.of(path, cause, "give its layer_structure and the like, or --dim_from_weights")
        self.load_tensors(_flat(nets), str(path))

    def file_tensors(self, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        return {key: value.to("cpu", dtype) if dtype else value for key, value in self.tensors().items()}

    def save(self, path: Path, saving: Saving) -> None:
        nets: dict[tuple[int, int], Net] = {}
        for name, module in self.by_name.items():
            width, half = name.split("_")
            nets[int(width), HALVES.index(half)] = module.state_dict()
        write_hypernetwork(path, nets, self.structure, saving)


def check_arguments(arguments: dict[str, str]) -> None:
    """Raises UserError for --network_args that it does not know or whose values are wrong."""
    asked = _read(arguments)
    starts = {} if not asked.activate_output else {asked.activation_func: ACTIVATIONS[asked.activation_func]}
    for name, activation in starts.items():
        if activation is not None and activation()(torch.zeros(1)).any():
            cause = f"{name} of 0 is not 0, so that an untrained network would change what a model draws"
            raise UserError.of("--network_args activate_output", cause, "leave it out, or choose another one")
    if asked.activate_output and asked.activation_func == "linear":
        warn("--network_args activate_output has no effect without activation_func")


def create(
    model: Model,
    *,
    dim: int | None,
    alpha: float | None,
    dropout: float | None,
    arguments: dict[str, str],
    parts: Collection[str],
    seed: int,
    like: Path | None = None,
) -> Network:
    """A new hypernetwork for the U-Net of a model. It is not attached yet.

    dim, alpha: without effect.
    dropout: probability of dropping a value behind a hidden layer.
    arguments: see HypernetworkArguments.
    like: a file whose widths and layers it has instead; not its values.
    """
    if "unet" not in parts:
        raise UserError.of("--network_train_text_encoder_only", f"{MODULE} is for the U-Net only")
    warn_of_idle_alpha(alpha, MODULE, "see --network_args layer_structure=1,2,1")
    if dim is not None:
        warn(f"--network_dim has no effect with {MODULE}: see --network_args layer_structure=1,2,1")
    asked, points = _read(arguments), _points(model)
    structure = asked.structure(dropout or 0.0)
    if like is not None:
        nets, structure = read_hypernetwork(like)
        points = _chosen(points, nets, like)
    initialization = asked.weight_initialization
    modules = {
        name: HypernetworkModule(*own, structure=structure, initialization=initialization)
        for name, own in points.items()
    }
    for name, module in modules.items():
        module.initialize(keyed_generator(seed, "hypernetwork", name))
    return Hypernetwork(modules, structure, model)


def from_file(model: Model, path: Path) -> Network:
    """The hypernetwork in a file, for a model, neither attached nor trained. Widths that the model does not
    have are skipped with a warning. Raises UserError when it does not fit.
    """
    nets, structure = read_hypernetwork(path)
    if structure.activation_func not in ACTIVATIONS:
        cause = f"its activation {structure.activation_func!r} is not known"
        raise UserError.of(path, cause, f"there are {', '.join(ACTIVATIONS)}")
    points = _chosen(_points(model), nets, path)
    _check_sizes(nets, structure, path)
    modules = {name: HypernetworkModule(*own, structure=structure) for name, own in points.items()}
    network = Hypernetwork(modules, structure, model)
    tensors = _flat({key: net for key, net in nets.items() if _name(*key) in points})
    check_names(network.tensors(), tensors, str(path))
    network.load_tensors(tensors, str(path))
    return network.requires_grad_(False).eval()


def _points(model: Model) -> dict[str, list[AttachPoint]]:
    """The layers that make keys or values, by the names of their nets, narrow ones first."""
    found: dict[tuple[int, int], list[AttachPoint]] = {}
    for point in model.attach_points():
        half = next((half for end, half in ENDS.items() if f".{point.path}".endswith(end)), None)
        if half is not None and point.part == "unet":
            found.setdefault((point.module.weight.shape[1], HALVES.index(half)), []).append(point)
    return {_name(*key): found[key] for key in sorted(found)}


def _chosen(
    points: Mapping[str, list[AttachPoint]], nets: Mapping[tuple[int, int], Net], path: Path
) -> dict[str, list[AttachPoint]]:
    """The layers for which a file has nets."""
    given = {_name(*key): key for key in nets}
    others = sorted({key[0] for name, key in given.items() if name not in points})
    widths = ", ".join(sorted({name.split("_")[0] for name in points}, key=int))
    if others and len(others) * 2 == len(nets):
        cause = f"its widths {', '.join(map(str, others))} are none of this model's {widths}"
        raise UserError.of(path, cause, "use a hypernetwork for this family")
    if others:
        warn(f"{path.name}: its nets of width {', '.join(map(str, others))} are left out: the model has none")
    return {name: own for name, own in points.items() if name in given}


def _check_sizes(nets: Mapping[tuple[int, int], Net], structure: Structure, path: Path) -> None:
    """Raises UserError when a file's tensors are not as its settings say, before a net takes memory for what
    a small file may claim.
    """
    for (width, _), net in nets.items():
        widest = int(width * max(structure.layer_structure))
        held = max((max(tensor.shape, default=0) for tensor in net.values()), default=0)
        if widest != held:
            cause = f"its layer_structure asks for {widest} values, its tensors have {held}"
            raise UserError.of(path, cause, "get the file again")


def _layers(width: int, structure: Structure) -> list[nn.Module]:
    """The layers of a net; their places are part of the names in files."""
    layers: list[nn.Module] = []
    sizes = [int(width * factor) for factor in structure.layer_structure]
    activation = ACTIVATIONS[structure.activation_func]
    for number, (into, out) in enumerate(zip(sizes, sizes[1:], strict=False), start=1):
        layers.append(nn.Linear(into, out))
        if activation is not None and (number < len(sizes) - 1 or structure.activate_output):
            layers.append(activation())
        if structure.is_layer_norm:
            layers.append(nn.LayerNorm(out))
        if structure.dropout_structure is not None and structure.dropout_structure[number] > 0:
            layers.append(nn.Dropout(structure.dropout_structure[number]))
    return layers


def _name(width: int, half: int) -> str:
    return f"{width}_{HALVES[half]}"


def _flat(nets: Mapping[tuple[int, int], Net]) -> dict[str, Tensor]:
    return {f"{_name(*key)}.{name}": tensor for key, net in nets.items() for name, tensor in net.items()}


def _built(structure: Structure) -> str:
    """What tensors and outputs depend on, in words."""
    layers = ",".join(f"{factor:g}" for factor in structure.layer_structure)
    activation = structure.activation_func
    last = " (the last too)" if structure.activate_output and activation != "linear" else ""
    return f"{layers} {activation}{last}{' with layer norm' if structure.is_layer_norm else ''}"


def _normal(weight: Tensor, _: str, generator: torch.Generator) -> None:
    nn.init.normal_(weight, std=0.01, generator=generator)


def _by_fan(init: Callable[..., Any], weight: Tensor, slope: str, generator: torch.Generator) -> None:
    given = {"nonlinearity": slope} if "kaiming" in init.__name__ else {}
    init(weight, generator=generator, **given)


_INITIALIZATIONS: dict[str, Callable[[Tensor, str, torch.Generator], None]] = {
    "Normal": _normal,
    "XavierUniform": partial(_by_fan, nn.init.xavier_uniform_),
    "XavierNormal": partial(_by_fan, nn.init.xavier_normal_),
    "KaimingUniform": partial(_by_fan, nn.init.kaiming_uniform_),
    "KaimingNormal": partial(_by_fan, nn.init.kaiming_normal_),
}


def _read(arguments: dict[str, str]) -> HypernetworkArguments:
    own: dict[str, Callable[[str], Any]] = {
        "layer_structure": _factors,
        "activation_func": partial(_one_of, ACTIVATIONS),
        "is_layer_norm": switch,
        "activate_output": switch,
        "weight_initialization": partial(_one_of, _INITIALIZATIONS),
    }
    return HypernetworkArguments(**read_own_values(arguments, own, MODULE, NOT_OF_NETS))


def _factors(text: str) -> tuple[float, ...]:
    try:
        factors = tuple(float(word) for word in text.strip("[]() ").split(","))
    except ValueError:
        factors = ()
    if len(factors) < 2 or (factors[0], factors[-1]) != (1, 1) or not 0 < min(factors) <= max(factors) <= 64:
        raise ValueError("expects numbers with commas between, of which the first and the last are 1")
    return tuple(int(factor) if factor == int(factor) else factor for factor in factors)


def _one_of(names: Mapping[str, object], text: str) -> str:
    found = next((name for name in names if name.lower() == text.strip().lower()), None)
    if found is None:
        raise ValueError(f"expects one of {', '.join(names)}")
    return found
