"""LoRA (Hu et al. 2021, arXiv:2106.09685): a low-rank addition beside linear and convolution layers.

LoRA-LierLa covers linear layers and 1x1 convolutions of attention blocks and the text encoder; with conv_dim,
LoRA-C3Lier covers the 3x3 convolutions (and the linear layers) of the U-Net's residual and sampling blocks
too.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from library.models.base import AttachPoint, Model
from library.network.arguments import read_arguments, warn_of_idle
from library.network.building import build_network, network_from_file, plan_network
from library.network.files import Shapes
from library.network.low_rank import is_linear, linear_with_lora, linears_with_lora
from library.network.module import NetworkModule
from library.network.network import Network
from library.network.sizes import Size
from library.problems import UserError

KIND = "lora"


class LoRAModule(NetworkModule):
    """y = W x + (alpha / rank) * multiplier * B A x.

    A (`lora_down`) is (rank, in) or (rank, in, k, k), B (`lora_up`) is (out, rank) or (out, rank, 1, 1); B
    starts at zero, so a new LoRA changes nothing.
    """

    stands = "instead"
    follows_dtype = True

    lora_down: nn.Linear | nn.Conv2d
    lora_up: nn.Linear | nn.Conv2d

    def __init__(self, point: AttachPoint, size: Size) -> None:
        super().__init__(point, size=size)
        layer, out = self.layer, self.weight_shape[0]
        if isinstance(layer, nn.Conv2d):
            self.lora_down = nn.Conv2d(
                layer.in_channels,
                size.rank,
                kernel_size=_pair(layer.kernel_size),
                stride=_pair(layer.stride),
                padding=layer.padding if isinstance(layer.padding, str) else _pair(layer.padding),
                bias=False,
            )
            self.lora_up = nn.Conv2d(size.rank, out, 1, bias=False)
        else:
            self.lora_down = nn.Linear(layer.in_features, size.rank, bias=False)
            self.lora_up = nn.Linear(size.rank, out, bias=False)
        self.dropout = self.rank_dropout = self.module_dropout = 0.0

    def initialize(self, generator: torch.Generator) -> None:
        """A as torch initializes linear layers (uniform, Kaiming with a = sqrt 5), B zero."""
        nn.init.kaiming_uniform_(self.lora_down.weight, a=math.sqrt(5), generator=generator)
        nn.init.zeros_(self.lora_up.weight)

    @property
    def _drops(self) -> bool:
        return self.training and bool(self.dropout or self.rank_dropout or self.module_dropout)

    def computed_with(self) -> tuple[Tensor, Tensor]:
        return self.lora_down.weight, self.lora_up.weight

    def computes_together(self, x: Tensor) -> bool:
        return not self._drops and is_linear(self.layer, x) and super().computes_together(x)

    def forward_with_layer(self, x: Tensor) -> Tensor:
        down, up = self.weights_in(x.dtype)
        layer, scale = self.layer, self.scale * self.multiplier
        if isinstance(layer, nn.Linear):
            return linear_with_lora(x, layer.weight, layer.bias, down, up, scale)
        weights = (layer.weight.flatten(1), layer.bias, down.flatten(1), up.flatten(1))
        return linear_with_lora(x.movedim(1, -1), *weights, scale).movedim(-1, 1)

    def may_join(self) -> bool:
        return not self._drops and isinstance(self.layer, nn.Linear) and super().may_join()

    @staticmethod
    def forward_together(
        modules: Sequence[LoRAModule], x: Tensor, stack: Tensor, *others: Tensor
    ) -> Sequence[Tensor]:
        layers = [module.layer for module in modules]
        scales = [module.scale * module.multiplier for module in modules]
        weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
        return linears_with_lora(x, weights, biases, stack, others, scales)

    def add_to(self, out: Tensor, x: Tensor) -> Tensor:
        scale = self.scale * self.multiplier
        down, up = self.weights_in(x.dtype)
        hidden = self._down(x, down)  # (..., rank) or (batch, rank, h, w)
        if self._drops:
            hidden = self._drop(hidden)
        if isinstance(self.lora_up, nn.Conv2d):
            return torch.add(out, F.conv2d(hidden, up), alpha=scale)
        # One operator for product, scale and sum.
        flat = torch.addmm(out.reshape(-1, out.shape[-1]), hidden.reshape(-1, self.rank), up.T, alpha=scale)
        return flat.view(out.shape)

    def _down(self, x: Tensor, weight: Tensor) -> Tensor:
        down = self.lora_down
        if isinstance(down, nn.Conv2d):
            return F.conv2d(x, weight, None, down.stride, down.padding)
        return F.linear(x, weight)

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
        return delta.view(self.weight_shape) * self.scale

    def file_tensors(self) -> dict[str, Tensor]:
        return self.in_file_shapes(self.state_dict())

    def plus_parameters(self) -> list[nn.Parameter]:
        return list(self.lora_up.parameters())

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
    alpha: float | None,
    dropout: float | None,
    arguments: dict[str, str],
    parts: Collection[str],
    seed: int,
    like: Path | None = None,
) -> Network:
    """A new LoRA for the given parts ("unet", "te") of a model. It is not attached yet.

    dim: rank of linear and 1x1 layers, None is 4.
    alpha: None is 1; 0 means dim, so that the scale is 1.
    dropout: probability of dropping a hidden value.
    arguments: see NetworkArguments.
    seed: first values depend on it and a module's name alone.
    like: a file whose layers, ranks and alphas it has instead; not its values.
    """
    asked = read_arguments(arguments)
    plan = plan_network(model, KIND, asked, dim=dim, alpha=alpha, parts=parts, like=like)

    def make(point: AttachPoint, size: Size, shapes: Shapes) -> LoRAModule:
        _check_shapes(point, size, shapes, like)
        module = LoRAModule(point, size)
        module.dropout = dropout or 0.0
        module.rank_dropout, module.module_dropout = asked.rank_dropout, asked.module_dropout
        return module

    return build_network(model, KIND, plan, make, seed=seed)


def from_file(model: Model, path: Path) -> Network:
    """The LoRA in a file, with its own ranks and alphas, for a model. A missing alpha means scale 1.

    Raises UserError when the file is no LoRA or does not fit the model.
    """

    def make(point: AttachPoint, size: Size, shapes: Shapes) -> LoRAModule:
        _check_shapes(point, size, shapes, path)
        return LoRAModule(point, size)

    return network_from_file(model, path, KIND, make)


def _check_shapes(point: AttachPoint, size: Size, shapes: Shapes, source: Path | None) -> None:
    """Raises UserError when a file's tensors do not fit the layer, before a module takes memory for a rank
    that a small file may claim.
    """
    out, *inputs = point.module.weight.shape
    wanted = {"lora_down.weight": size.rank * math.prod(inputs), "lora_up.weight": out * size.rank}
    for tensor, count in wanted.items():
        if tensor in shapes and math.prod(shapes[tensor]) != count:
            cause = f"{tensor} of {point.path} is {shapes[tensor]}, which does not fit the model's layer"
            raise UserError.of(source, cause, "use a LoRA that was made for this kind of model")


def _pair(sides: tuple[int, ...]) -> tuple[int, int]:
    height, width = sides
    return height, width
