"""LoRA (Hu et al. 2021, arXiv:2106.09685): a low-rank addition beside linear and convolution layers.

LoRA-LierLa covers linear layers and 1x1 convolutions of attention blocks and the text encoder; with conv_dim,
LoRA-C3Lier covers the 3x3 convolutions (and the linear layers) of the U-Net's residual and sampling blocks
too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from library.models.base import Model
from library.problems import Problems, warn
from library.randomness import keyed_generator
from networks.base import (
    Network,
    NetworkModule,
    check_names,
    module_name,
    read_network_file,
    renamed,
    targets,
)

LINEAR_PARENTS = ("CLIPAttention", "CLIPMLP", "Transformer2DModel")
CONV_PARENTS = ("ResnetBlock2D", "Downsample2D", "Upsample2D")
PARENTS = (*LINEAR_PARENTS, *CONV_PARENTS)

# --network_args this network knows, and those of sd-scripts it does not have yet.
ARGUMENTS = ("conv_dim", "conv_alpha", "rank_dropout", "module_dropout")
NOT_YET = [
    "block_dims",
    "block_alphas",
    "conv_block_dims",
    "conv_block_alphas",
    "down_lr_weight",
    "mid_lr_weight",
    "up_lr_weight",
    "block_lr_zero_threshold",
    "loraplus_lr_ratio",
    "loraplus_unet_lr_ratio",
    "loraplus_text_encoder_lr_ratio",
]

DEFAULT_DIM = 4


class LoRAModule(NetworkModule):
    """y = W x + (alpha / rank) * multiplier * B A x.

    A (`lora_down`) is (rank, in) or (rank, in, k, k), B (`lora_up`) is (out, rank) or (out, rank, 1, 1); B
    starts at
    zero, so a new LoRA changes nothing.
    """

    def __init__(self, layer: nn.Module, rank: int, alpha: float) -> None:
        super().__init__(layer)
        if isinstance(layer, nn.Conv2d):
            self.lora_down = nn.Conv2d(
                layer.in_channels, rank, layer.kernel_size, layer.stride, layer.padding, bias=False
            )
            self.lora_up = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        else:
            self.lora_down = nn.Linear(layer.in_features, rank, bias=False)
            self.lora_up = nn.Linear(rank, layer.out_features, bias=False)
        self.rank = rank
        self.register_buffer("alpha", torch.tensor(float(alpha)))
        self.scale = alpha / rank  # a number beside the buffer: reading a tensor would wait for the device
        self.dropout = self.rank_dropout = self.module_dropout = 0.0

    def took_values(self) -> None:
        self.scale = float(self.alpha) / self.rank

    def initialize(self, generator: torch.Generator) -> None:
        """A as torch initializes linear layers (uniform, Kaiming with a = sqrt 5), B zero."""
        nn.init.kaiming_uniform_(self.lora_down.weight, a=math.sqrt(5), generator=generator)
        nn.init.zeros_(self.lora_up.weight)

    def add_to(self, out: Tensor, x: Tensor) -> Tensor:
        scale = self.scale * self.multiplier
        hidden = self.lora_down(x)
        if self.training:
            hidden = self._drop(hidden)
        if isinstance(self.lora_up, nn.Conv2d):
            return torch.add(out, self.lora_up(hidden), alpha=scale)
        flat = torch.addmm(
            out.reshape(-1, out.shape[-1]), hidden.reshape(-1, self.rank), self.lora_up.weight.T, alpha=scale
        )
        return flat.view(out.shape)

    def _drop(self, hidden: Tensor) -> Tensor:
        """The three dropouts: of values, of whole ranks per sample (rescaled), of this module as a whole."""
        if self.dropout:
            hidden = F.dropout(hidden, self.dropout)
        if self.rank_dropout:
            shape = [1] * hidden.ndim
            shape[0], shape[1 if isinstance(self.lora_up, nn.Conv2d) else -1] = hidden.shape[0], self.rank
            kept = torch.rand(shape, device=hidden.device) > self.rank_dropout
            hidden = hidden * kept.to(hidden.dtype) / (1 - self.rank_dropout)
        if self.module_dropout:
            hidden = hidden * (torch.rand((), device=hidden.device) >= self.module_dropout).to(hidden.dtype)
        return hidden

    def delta_weight(self) -> Tensor:
        down, up = self.lora_down.weight.float(), self.lora_up.weight.float()
        delta = up.flatten(1) @ down.flatten(1)  # (out, in * k * k)
        return delta.view(self.layer.weight.shape) * self.scale


def check_arguments(arguments: dict[str, str]) -> None:
    """Raises UserError for --network_args that LoRA does not know or whose values are wrong."""
    from difflib import get_close_matches

    problems = Problems()
    for name, text in arguments.items():
        where = f"--network_args {name}"
        if name in NOT_YET:
            problems.add(where, "is not available yet", "remove it")
        elif name not in ARGUMENTS:
            close = get_close_matches(name, ARGUMENTS, n=1)
            problems.add(
                where, "networks.lora has no such argument", f"did you mean {close[0]}?" if close else ""
            )
        elif not _is_valid(name, text):
            expected = "a whole number of 1 or more" if name == "conv_dim" else "a number"
            problems.add(
                where, f"expects {'a probability below 1' if 'dropout' in name else expected}, got {text!r}"
            )
    if "conv_alpha" in arguments and "conv_dim" not in arguments:
        warn("--network_args conv_alpha has no effect without conv_dim")
    problems.raise_if_any()


def _is_valid(name: str, text: str) -> bool:
    try:
        number = int(text) if name == "conv_dim" else float(text)
    except ValueError:
        return False
    if name == "conv_dim":
        return number >= 1
    return 0 <= number < 1 if "dropout" in name else number >= 0


def create(
    model: Model,
    *,
    dim: int | None,
    alpha: float,
    dropout: float | None,
    arguments: dict[str, str],
    parts: Iterable[str],
    seed: int,
) -> Network:
    """A new LoRA for the given parts ("unet", "te") of a model. It is not attached yet.

    dim: rank of linear and 1x1 layers, None is 4. alpha: 0 means dim, so that the scale is 1. dropout:
    probability on
    the hidden values. arguments: see ARGUMENTS. seed: initial values depend on it and a module's name alone.
    """
    dim = dim or DEFAULT_DIM
    conv_dim = int(arguments["conv_dim"]) if "conv_dim" in arguments else None
    conv_alpha = float(arguments.get("conv_alpha", 1.0))
    parents = LINEAR_PARENTS if conv_dim is None else PARENTS
    modules: dict[str, NetworkModule] = {}
    for name, point in targets(model, parts, parents).items():
        is_large = isinstance(point.module, nn.Conv2d) and point.module.kernel_size != (1, 1)
        rank, scale = (conv_dim, conv_alpha) if is_large else (dim, alpha)
        module = LoRAModule(point.module, rank, scale or rank)
        if module.lora_down.weight.device.type != "meta":
            module.initialize(keyed_generator(seed, "lora", name))
        module.dropout = dropout or 0.0
        module.rank_dropout = float(arguments.get("rank_dropout", 0.0))
        module.module_dropout = float(arguments.get("module_dropout", 0.0))
        modules[name] = module
    return Network(modules, dim=dim, alpha=alpha)


def from_file(model: Model, path: Path) -> Network:
    """The LoRA in a file, with its own ranks and alphas, for a model. A missing alpha means scale 1.

    Raises UserError when the file is no LoRA or does not fit the model.
    """
    points = {module_name(point): point for point in model.attach_points()}
    tensors = renamed(read_network_file(path), points.values())
    names = {key.split(".", 1)[0] for key in tensors}
    check_names(points.keys() & names, names, str(path))
    modules: dict[str, NetworkModule] = {}
    for name in sorted(names):
        rank = tensors[f"{name}.lora_down.weight"].shape[0]
        modules[name] = LoRAModule(points[name].module, rank, float(tensors[f"{name}.alpha"]))
    network = Network(modules, dim=None, alpha=None)
    network.load_tensors(tensors, str(path))
    return network.requires_grad_(False).eval()
