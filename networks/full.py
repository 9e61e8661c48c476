"""Whole changes of layers, as LyCORIS' `algo=full` and `train_norm` write them: of weights, biases and norms.

Files of them are drawn with and merged, and so are those of other kinds that have some beside their own. They
are as large as the layers; fine-tuning trains the same better, so none is trained here.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from library.models.base import AttachPoint, Model
from library.network.building import network_from_file
from library.network.files import Shapes
from library.network.module import NetworkModule
from library.network.network import Network
from library.network.sizes import Size
from library.problems import UserError


class WholeModule(NetworkModule):
    """W + m * diff and b + m * diff_b; of a norm w_norm and b_norm."""

    def __init__(self, point: AttachPoint, shapes: Shapes) -> None:
        super().__init__(point)
        layer: nn.Module = point.module
        self.is_norm = not isinstance(layer, (nn.Linear, nn.Conv2d))
        self.names = ("w_norm", "b_norm") if self.is_norm else ("diff", "diff_b")
        if self.names[1] in shapes and layer.bias is None:
            raise UserError.of(f"{point.path}.{self.names[1]}", "changes a bias, and the layer has none")
        if unfit := shapes.keys() - set(self.names):
            raise UserError.of(f"{point.path}.{min(unfit)}", "is no change of such a layer")
        for name, tensor in zip(self.names, (layer.weight, layer.bias), strict=True):
            if name in shapes and isinstance(tensor, Tensor):
                self.register_buffer(name, torch.zeros(tensor.shape))

    def delta_weight(self) -> Tensor:
        change = self._change(0)
        return torch.zeros(self.weight_shape) if change is None else change.float()

    def add_to(self, out: Tensor, x: Tensor) -> Tensor:
        weight, bias = self._change(0), self._change(1)
        if weight is not None:
            out = out + self._weighed(x, weight.to(x.dtype)) * self.multiplier
        return out if bias is None else out + self._along_channels(bias.to(x.dtype), out) * self.multiplier

    def _change(self, place: int) -> Tensor | None:
        """Of the weight (0) or of the bias (1), where the file has one."""
        return dict(self.named_buffers()).get(self.names[place])

    def _weighed(self, x: Tensor, weight: Tensor) -> Tensor:
        """What the layer gives for x with another weight and no bias."""
        layer: nn.Module = self.layer
        if isinstance(layer, nn.GroupNorm):
            return F.group_norm(x, layer.num_groups, weight, None, layer.eps)
        if isinstance(layer, nn.LayerNorm):
            return F.layer_norm(x, list(layer.normalized_shape), weight, None, layer.eps)
        return self.as_layer(x, weight)

    def _along_channels(self, bias: Tensor, out: Tensor) -> Tensor:
        """A bias in a shape that broadcasts to what the layer gives."""
        has_sides = isinstance(self.layer, (nn.Conv2d, nn.GroupNorm))
        return bias.view(-1, *(1,) * (out.ndim - 2)) if has_sides else bias

    @torch.no_grad()
    def merge(self) -> None:
        super().merge()
        change, bias = self._change(1), self.layer.bias
        if change is not None and bias is not None:
            bias.copy_(bias.float() + change.to(bias.device) * self.multiplier)


def check_arguments(arguments: dict[str, str]) -> NoReturn:
    """Raises UserError: nothing of this kind is trained."""
    cause = "opens files, and trains none"
    fix = (
        "fine-tune the model, or use LyCORIS itself (--network_module lycoris.kohya --network_args algo=full)"
    )
    raise UserError.of("--network_module networks.full", cause, fix)


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
    """Raises UserError: nothing of this kind is trained."""
    check_arguments(arguments)


def from_file(model: Model, path: Path) -> Network:
    """The whole changes in a file, for a model."""
    return network_from_file(model, path, "full", _make)


def _make(point: AttachPoint, _: Size, shapes: Shapes) -> WholeModule:
    return WholeModule(point, shapes)
