"""Modules that rotate what a layer gives or is given: what the kinds of OFT share.

Rotated are outputs (less the bias) or inputs, not weights: that is exact and needs no matrix of the layer's
size. Only where blocks reach over several pixels of a convolution the weight is.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor, nn

from library.models.base import AttachPoint
from library.network.module import NetworkModule
from library.network.rotation import divisors, in_float32, nearest, times_blocks
from library.problems import UserError


class BlockModule(NetworkModule):
    """A change made of blocks, which are trained and give matrices that a step multiplies with.

    block_dropout: the probability that a block changes nothing in a step.
    module_dropout: the probability that the module changes nothing in a step.
    """

    follows_dtype = True  # with no weights to cast: matrices are made of them in float32

    def __init__(self, point: AttachPoint) -> None:
        super().__init__(point)
        self.block_dropout = self.module_dropout = 0.0
        self._kept: tuple[Hashable, Tensor] | None = None

    def without_bias(self, out: Tensor) -> Tensor:
        """Outputs of the layer (its rows of them), (..., out), less its bias."""
        bias, rows = self.layer.bias, self.points[0].rows
        if bias is None:
            return out
        return out - (bias if rows is None else bias[rows.start : rows.stop]).to(out.dtype)

    def computed_with(self) -> tuple[Tensor, ...]:
        return ()

    def make_matrices(self) -> Tensor:
        """Each block's matrix less the identity, (..., n, b, b) in float32: zero where nothing changes."""
        raise NotImplementedError

    def matrices(self) -> Tensor:
        """The same with dropout. Where nothing is trained they are kept until a weight changes."""
        weights = list(self.parameters())
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            with in_float32(weights[0].device):
                return self._dropped(self.make_matrices()) if self.training else self.make_matrices()
        state = tuple((weight.data_ptr(), weight.dtype, weight._version) for weight in weights)
        if self._kept is None or self._kept[0] != state:
            with torch.no_grad(), in_float32(weights[0].device):
                self._kept = state, self.make_matrices()
        return self._kept[1]

    def _dropped(self, matrices: Tensor) -> Tensor:
        if self.block_dropout:
            kept = torch.rand((*matrices.shape[:-2], 1, 1), device=matrices.device) >= self.block_dropout
            matrices = matrices * kept
        if self.module_dropout:
            matrices = matrices * (torch.rand((), device=matrices.device) >= self.module_dropout)
        return matrices


class OutputRotation(BlockModule):
    """y = x + m * turn(x) + bias for x = W input: W' = R^T W, the bias stays."""

    def turn(self, x: Tensor) -> Tensor:
        """What is added to x: (..., out), outputs of the layer without its bias, in x's type. Linear in x."""
        return times_blocks(x, self.matrices())

    def change(self, out: Tensor, x: Tensor) -> Tensor:
        dim = 1 if isinstance(self.layer, nn.Conv2d) else -1
        own = out.movedim(dim, -1)
        turned = self.turn(self.without_bias(own))
        return torch.add(own, turned, alpha=self.multiplier).movedim(-1, dim)

    def delta_weight(self) -> Tensor:
        weight = self.frozen_weight()
        return self.turn(weight.flatten(1).T).T.view(weight.shape)


class InputRotation(BlockModule):
    """y = W (x + m * turn(x)) + bias, by turning what a linear layer or a 1x1 convolution is given, and the
    weights of larger convolutions.

    width: how many inputs a weight's row has, over all pixels of its kernel.
    is_convolution: whether it is one in files.
    """

    def __init__(self, point: AttachPoint) -> None:
        super().__init__(point)
        self.width = self.weight_shape[1:].numel()
        self.is_convolution = isinstance(self.layer, nn.Conv2d) or point.is_1x1_in_files
        self.stands = "before" if self.weight_shape[2:].numel() == 1 else "after"

    def rotate_inputs(self, x: Tensor) -> Tensor:
        """What is added to inputs, (..., width), in their type."""
        raise NotImplementedError

    def rotate_weight(self, weight: Tensor) -> Tensor:
        """What is added to a weight's rows, (out, width)."""
        raise NotImplementedError

    def change_input(self, x: Tensor) -> Tensor:
        dim = 1 if isinstance(self.layer, nn.Conv2d) else -1
        turned = self.rotate_inputs(x.movedim(dim, -1)).movedim(-1, dim)
        return torch.add(x, turned, alpha=self.multiplier)

    def delta_weight(self) -> Tensor:
        weight = self.frozen_weight()
        return self.rotate_weight(weight.flatten(1)).view(weight.shape)


def side_of(point: AttachPoint, wanted: int, width: int, *, adjusts: bool, factors: int = 1) -> int:
    """How many of a layer's inputs a block has: `wanted`, or with `adjusts` the nearest number that fits.

    factors: how many rotations there are; more than one need an even size, and halves that reach far enough.
    Raises UserError when it does not fit.
    """
    sides = [side for side in divisors(width) if factors == 1 or _reaches(side, width, factors)]
    side = nearest(wanted, sides) if adjusts else wanted
    if side not in sides:
        cause = f"the {width} inputs of {point.path} cannot be divided into blocks of {wanted}"
        more = f" for {factors} rotations" if factors > 1 else ""
        raise UserError.of("--network_dim", cause + more, "choose another size, or auto_adjust=true")
    return side


def _reaches(side: int, width: int, factors: int) -> bool:
    return side % 2 == 0 and (width // side) % 2 == 0 and width % (side * 2 ** (factors - 1)) == 0
