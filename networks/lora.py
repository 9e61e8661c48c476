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

from library.models.base import AttachPoint, Model
from library.network.arguments import read_arguments, warn_of_fixed_sizes, warn_of_idle, warn_of_other_parts
from library.network.base import Network, NetworkModule, module_name, read_for, targets
from library.network.blocks import Blocks, Size, settle_blocks
from library.network.rates import Rates
from library.randomness import keyed_generator

LINEAR_PARENTS = ("CLIPAttention", "CLIPMLP", "Transformer2DModel")
CONV_PARENTS = ("ResnetBlock2D", "Downsample2D", "Upsample2D")
PARENTS = (*LINEAR_PARENTS, *CONV_PARENTS)

DEFAULT_DIM = 4


class LoRAModule(NetworkModule):
    """y = W x + (alpha / rank) * multiplier * B A x.

    A (`lora_down`) is (rank, in) or (rank, in, k, k), B (`lora_up`) is (out, rank) or (out, rank, 1, 1); B
    starts at zero, so a new LoRA changes nothing.
    """

    def __init__(self, layer: nn.Module, size: Size) -> None:
        super().__init__(layer)
        rank, alpha = size.rank, size.alpha or size.rank
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

    def plus_parameters(self) -> list[nn.Parameter]:
        return [self.lora_up.weight]

    def change_norm(self) -> Tensor:
        """Of B A: its square is the sum over (B^T B) * (A A^T), which needs no matrix of the layer's size."""
        down, up = self.lora_down.weight.flatten(1).float(), self.lora_up.weight.flatten(1).float()
        return ((up.T @ up) * (down @ down.T)).sum().clamp_min(0).sqrt() * self.scale

    def scale_change(self, factor: Tensor) -> None:
        for weight in (self.lora_down.weight, self.lora_up.weight):
            weight *= factor.sqrt()


def check_arguments(arguments: dict[str, str]) -> None:
    """Raises UserError for --network_args that LoRA does not know or whose values are wrong."""
    warn_of_idle(read_arguments(arguments))


def create(
    model: Model,
    *,
    dim: int | None,
    alpha: float,
    dropout: float | None,
    arguments: dict[str, str],
    parts: Iterable[str],
    seed: int,
    like: Path | None = None,
) -> Network:
    """A new LoRA for the given parts ("unet", "te") of a model. It is not attached yet.

    dim: rank of linear and 1x1 layers, None is 4. alpha: 0 means dim, so that the scale is 1. dropout:
    probability on the hidden values. arguments: see LoRAArguments. seed: initial values depend on it and a
    module's name alone. like: a file whose layers, ranks and alphas it has instead; not its values.
    """
    asked, plain = read_arguments(arguments), Size(dim or DEFAULT_DIM, alpha)
    warn_of_other_parts(asked, parts)
    blocks = settle_blocks(asked, model.block_spans(), plain)
    points = targets(model, parts, PARENTS if asked.has_convolutions or like else LINEAR_PARENTS)
    if like is None:
        sizes = {name: _size_of(point, blocks, plain) for name, point in points.items()}
    else:
        warn_of_fixed_sizes(asked)
        sizes = {name: size for name, size in _sizes_in(read_for(model, like)).items() if name in points}
    modules: dict[str, NetworkModule] = {}
    for name, size in sizes.items():
        if size.rank:
            modules[name] = module = LoRAModule(points[name].module, size)
            module.block = points[name].block
            module.dropout = dropout or 0.0
            module.rank_dropout, module.module_dropout = asked.rank_dropout, asked.module_dropout
            if module.lora_down.weight.device.type != "meta":
                module.initialize(keyed_generator(seed, "lora", name))
    rates = Rates(blocks.weights, asked.rate_ratios)
    if like is None:
        return Network(modules, dim=plain.rank, alpha=alpha, rates=rates)
    return Network(modules, dim=_common(sizes.values()), alpha=None, rates=rates)


def _size_of(point: AttachPoint, blocks: Blocks, plain: Size) -> Size:
    if point.block is None:
        return plain
    sizes = blocks.sizes[point.block]
    is_large = isinstance(point.module, nn.Conv2d) and point.module.kernel_size != (1, 1)
    return sizes.conv if is_large else sizes.linear


def _sizes_in(tensors: dict[str, Tensor]) -> dict[str, Size]:
    """By the names of modules, sorted."""
    names = sorted({key.split(".", 1)[0] for key in tensors})
    ranks = {name: tensors[f"{name}.lora_down.weight"].shape[0] for name in names}
    return {name: Size(rank, float(tensors[f"{name}.alpha"])) for name, rank in ranks.items()}


def _common(sizes: Iterable[Size]) -> int | None:
    """The rank that all have; None when they differ."""
    ranks = {size.rank for size in sizes}
    return ranks.pop() if len(ranks) == 1 else None


def from_file(model: Model, path: Path) -> Network:
    """The LoRA in a file, with its own ranks and alphas, for a model. A missing alpha means scale 1.

    Raises UserError when the file is no LoRA or does not fit the model.
    """
    tensors = read_for(model, path)
    points = {module_name(point): point for point in model.attach_points()}
    modules = {name: LoRAModule(points[name].module, size) for name, size in _sizes_in(tensors).items()}
    network = Network(modules, dim=None, alpha=None)
    network.load_tensors(tensors, str(path))
    return network.requires_grad_(False).eval()
