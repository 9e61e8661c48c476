"""LoRA (Hu et al. 2021, arXiv:2106.09685): a low-rank addition beside linear and convolution layers.

LoRA-LierLa covers linear layers and 1x1 convolutions of attention blocks and the text encoder; with conv_dim,
LoRA-C3Lier covers the 3x3 convolutions (and the linear layers) of the U-Net's residual and sampling blocks
too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from library.models.base import AttachPoint, Model
from library.network.additive import PLAIN, AdditiveModule, Axis, Variant, low_rank_norms
from library.network.additive_kinds import (
    AdditiveArguments,
    MakeAdditive,
    additive_from_file,
    check_shapes,
    create_additive,
    read_additive,
    warn_of_idle_additions,
    with_magnitudes,
)
from library.network.family import Shapes
from library.network.low_rank import is_linear, linear_with_lora, linears_with_lora
from library.network.module import weight_shape
from library.network.network import Network
from library.network.sizes import Size

KIND = "lora"
DOWN, UP, MID = "lora_down.weight", "lora_up.weight", "lora_mid.weight"


class LoRAModule(AdditiveModule):
    """y = W x + (alpha / rank) * multiplier * B A x.

    A (`lora_down`) is (rank, in) or (rank, in, k, k), B (`lora_up`) is (out, rank) or (out, rank, 1, 1); B
    starts at zero, so a new LoRA changes nothing. As a Tucker decomposition of a kernel it has a third one
    between them, `lora_mid` (rank, rank, k, k), and A is (rank, in, 1, 1).
    """

    lora_down: nn.Linear | nn.Conv2d
    lora_up: nn.Linear | nn.Conv2d
    lora_mid: nn.Conv2d | None

    def __init__(self, point: AttachPoint, size: Size, variant: Variant = PLAIN) -> None:
        super().__init__(point, size, variant)
        layer, out, rank = self.layer, self.weight_shape[0], size.rank
        self.lora_mid = None
        if isinstance(layer, nn.Conv2d):
            if variant.is_tucker and layer.kernel_size != (1, 1):
                self.lora_down = nn.Conv2d(layer.in_channels, rank, 1, bias=False)
                self.lora_mid = _like(layer, rank, rank)
            else:
                self.lora_down = _like(layer, layer.in_channels, rank)
            self.lora_up = nn.Conv2d(rank, out, 1, bias=False)
        else:
            self.lora_down = nn.Linear(layer.in_features, rank, bias=False)
            self.lora_up = nn.Linear(rank, out, bias=False)
        self.factor_names = (DOWN, UP) if self.lora_mid is None else (DOWN, UP, MID)
        self.scalar_on = UP
        self._is_plain = self.lora_mid is None and self.scalar is None and self.dora_scale is None

    def initialize_factors(self, generator: torch.Generator) -> None:
        """A as torch initializes linear layers (uniform, Kaiming with a = sqrt 5), B zero; with a scalar B
        too, for the scalar is zero.
        """
        for name, weight in zip(self.factor_names, self.computed_with(), strict=True):
            if name == UP and self.scalar is None:
                nn.init.zeros_(weight)
            else:
                nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)

    def computed_with(self) -> tuple[Tensor, ...]:
        pair = self.lora_down.weight, self.lora_up.weight
        return pair if self.lora_mid is None else (*pair, self.lora_mid.weight)

    def computes_together(self, x: Tensor) -> bool:
        if not self._is_plain:
            return super().computes_together(x)
        return not self.drops and is_linear(self.layer, x) and self.is_replaceable(x)

    def forward_with_layer(self, x: Tensor) -> Tensor:
        if not self._is_plain:
            return super().forward_with_layer(x)
        down, up = self.weights_in(x.dtype)
        layer, scale = self.layer, self.scale * self.multiplier
        if isinstance(layer, nn.Linear):
            return linear_with_lora(x, layer.weight, layer.bias, down, up, scale)
        weights = (layer.weight.flatten(1), layer.bias, down.flatten(1), up.flatten(1))
        return linear_with_lora(x.movedim(1, -1), *weights, scale).movedim(-1, 1)

    def may_join(self) -> bool:
        return self._is_plain and not self.drops and isinstance(self.layer, nn.Linear) and super().may_join()

    @staticmethod
    def forward_together(
        modules: Sequence[LoRAModule], x: Tensor, stack: Tensor, *others: Tensor
    ) -> Sequence[Tensor]:
        layers = [module.layer for module in modules]
        scales = [module.scale * module.multiplier for module in modules]
        weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
        return linears_with_lora(x, weights, biases, stack, others, scales)

    def added(self, out: Tensor, x: Tensor, strength: float) -> Tensor:
        scale = self.scale * strength
        down, up, *mid = self.factors(x.dtype)
        hidden = self._hidden(x, down, *mid)  # (..., rank) or (batch, rank, h, w)
        if self.drops:
            hidden = self._drop(hidden)
        if isinstance(self.lora_up, nn.Conv2d):
            return torch.add(out, self._product(hidden, up), alpha=scale)
        # One operator for product, scale and sum.
        flat = torch.addmm(out.reshape(-1, out.shape[-1]), hidden.reshape(-1, self.rank), up.T, alpha=scale)
        return flat.view(out.shape)

    def _product(self, hidden: Tensor, up: Tensor) -> Tensor:
        return F.conv2d(hidden, up) if isinstance(self.lora_up, nn.Conv2d) else F.linear(hidden, up)

    def _hidden(self, x: Tensor, down: Tensor, mid: Tensor | None = None) -> Tensor:
        first = self.lora_down
        if not isinstance(first, nn.Conv2d):
            return F.linear(x, down)
        hidden = F.conv2d(x, down, None, first.stride, first.padding)
        if mid is None or self.lora_mid is None:
            return hidden
        return F.conv2d(hidden, mid, None, self.lora_mid.stride, self.lora_mid.padding)

    def _drop(self, hidden: Tensor) -> Tensor:
        """The dropouts of values and of whole ranks per sample."""
        if self.dropout:
            hidden = F.dropout(hidden, self.dropout)
        if self.rank_dropout:
            shape = [1] * hidden.ndim
            shape[0], shape[1 if isinstance(self.lora_up, nn.Conv2d) else -1] = hidden.shape[0], self.rank
            kept = (torch.rand(shape, device=hidden.device) > self.rank_dropout).to(hidden.dtype)
            hidden = hidden * (kept / (1 - self.rank_dropout) if self.scales_dropout else kept)
        return hidden

    def _matrices(self) -> tuple[Tensor, Tensor]:
        """B (out, rank) and A (rank, in * k * k), float32: all that it is, but for its scale."""
        down, up, *mid = self.factors(torch.float32)
        if mid:
            down = torch.einsum("pqhw,qi->pihw", mid[0], down.flatten(1))
        return up.flatten(1), down.flatten(1)

    def additive_delta(self) -> Tensor:
        up, down = self._matrices()
        return (up @ down).view(self.weight_shape) * self.scale

    def sum_norms(self, axis: Axis) -> Tensor:
        up, down = self._matrices()
        return low_rank_norms(self.frozen_weight(), up * self.scale, down, axis)

    def file_tensors(self) -> dict[str, Tensor]:
        return self.in_file_shapes(super().file_tensors())

    def plus_parameters(self) -> list[nn.Parameter]:
        return list(self.lora_up.parameters())

    def change_norm(self) -> Tensor:
        """Of B A: its square is the sum over (B^T B) * (A A^T), which needs no matrix of the layer's size."""
        up, down = self._matrices()
        return ((up.T @ up) * (down @ down.T)).sum().clamp_min(0).sqrt() * self.scale


def lora_shapes(weight: tuple[int, ...], rank: int, *, is_tucker: bool) -> Shapes:
    """The shapes of a LoRA's matrices beside a layer's weight."""
    out, inputs, *kernel = weight
    ones = [1] * len(kernel)
    shapes: dict[str, tuple[int, ...]] = {UP: (out, rank, *ones)}
    if is_tucker and kernel != ones:
        return shapes | {DOWN: (rank, inputs, *ones), MID: (rank, rank, *kernel)}
    return shapes | {DOWN: (rank, inputs, *kernel)}


def check_arguments(arguments: dict[str, str]) -> None:
    """Raises UserError for --network_args that LoRA does not know or whose values are wrong."""
    warn_of_idle_additions(_read(arguments))


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
    arguments: see AdditiveArguments.
    seed: first values depend on it and a module's name alone.
    like: a file whose layers, ranks and alphas it has instead; not its values.
    """
    return create_additive(
        model,
        KIND,
        _read(arguments),
        maker(LoRAModule, like),
        dim=dim,
        alpha=alpha,
        dropout=dropout,
        parts=parts,
        seed=seed,
        like=like,
    )


def from_file(model: Model, path: Path) -> Network:
    """The LoRA in a file, with its own ranks and alphas, for a model. A missing alpha means scale 1.

    Raises UserError when the file is no LoRA or does not fit the model.
    """
    return additive_from_file(model, path, KIND, maker(LoRAModule, path))


def maker(make: Callable[[AttachPoint, Size, Variant], LoRAModule], source: Path | None) -> MakeAdditive:
    """Modules as their tensors in the source are, where there is one."""

    def module(point: AttachPoint, size: Size, variant: Variant, shapes: Shapes) -> LoRAModule:
        own = replace(variant, is_tucker=variant.is_tucker or MID in shapes)
        weight = weight_shape(point)
        wanted = with_magnitudes(lora_shapes(weight, size.rank, is_tucker=own.is_tucker), weight, own)
        check_shapes(point, wanted, shapes, source, "LoRA")
        return make(point, size, own)

    return module


def _read(arguments: Mapping[str, str]) -> AdditiveArguments:
    return AdditiveArguments(**read_additive(arguments, "networks.lora"))


def _like(layer: nn.Conv2d, inputs: int, outputs: int) -> nn.Conv2d:
    """A convolution that walks over a picture as the layer does."""
    return nn.Conv2d(
        inputs,
        outputs,
        kernel_size=_pair(layer.kernel_size),
        stride=_pair(layer.stride),
        padding=layer.padding if isinstance(layer.padding, str) else _pair(layer.padding),
        bias=False,
    )


def _pair(sides: tuple[int, ...]) -> tuple[int, int]:
    height, width = sides
    return height, width
