"""IA3 (Liu et al. 2022, arXiv:2205.05638): a factor for each output of keys and values, and for each input of
the feed-forward layers' second half.

    W' = W * (1 + w), by rows or, with on_input, by columns

The files are LyCORIS': `lora_<layer>.weight` (out or in), of convolutions (1, out or in, 1, 1), and
`.on_input` (), which is 0 or 1. They are the smallest of all. PEFT's have the factor 1 + w itself, `ia3_l`,
of a linear layer's outputs (out, 1) or inputs (1, in), of convolutions (1, out or in, 1, 1).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from library.models.base import AttachPoint, Model
from library.network.arguments import NetworkArguments, warn_of_idle
from library.network.block_arguments import NOT_OF_BLOCKS, read_own_values
from library.network.block_building import (
    blocks_from_file,
    build_in_blocks,
    does_not_fit,
    warn_of_idle_alpha,
)
from library.network.family import Shapes
from library.network.network import Network
from library.network.rotating import BlockModule
from library.network.sizes import Size
from library.problems import UserError, warn

KIND = "ia3"
MODULE = "networks.ia3"
PEFT_FACTORS = "ia3_l"
OUTPUTS = (".to_k", ".to_v", ".k_proj", ".v_proj")
INPUTS = (".ff.net.2", ".mlp.fc2")
_NO_RANK = "its modules have a factor for each output or input, and no rank"
_LAYERS = "keys, values and feed-forward layers are what it covers"
REFUSED = {
    **NOT_OF_BLOCKS,
    **dict.fromkeys(("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas"), _NO_RANK),
    **dict.fromkeys(("conv_dim", "conv_alpha"), _LAYERS),
}


class IA3Module(BlockModule):
    """Factors of what the layer gives, or of what it is given."""

    def __init__(self, point: AttachPoint, shape: tuple[int, ...], *, on_input: bool = False) -> None:
        """shape: of the factors, as files have it."""
        super().__init__(point)
        self.weight = nn.Parameter(torch.zeros(shape))
        self.on_input: Tensor
        self.register_buffer("on_input", torch.tensor(int(on_input)))
        self.took_values()

    def initialize(self, generator: torch.Generator) -> None:
        nn.init.zeros_(self.weight)

    def took_values(self) -> None:
        self.stands = "before" if bool(self.on_input) else "after"

    def from_file_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if PEFT_FACTORS not in tensors:
            return dict(tensors)
        factors = tensors[PEFT_FACTORS]
        return {"weight": (factors.float() - 1).view(self.weight.shape), "on_input": self.on_input}

    def make_matrices(self) -> Tensor:
        return self.weight.float().reshape(-1, 1, 1)  # a block for each

    def factors(self) -> Tensor:
        """w with dropout, (out or in,), float32."""
        return self.matrices().flatten()

    def change(self, out: Tensor, x: Tensor) -> Tensor:
        if self.stands == "before":
            return self.add_to(out, x)
        dim = 1 if isinstance(self.layer, nn.Conv2d) else -1
        own = out.movedim(dim, -1)
        added = self.without_bias(own) * self.factors().to(out.dtype)
        return torch.add(own, added, alpha=self.multiplier).movedim(-1, dim)

    def change_input(self, x: Tensor) -> Tensor:
        factors = self.factors().to(x.dtype)
        shaped = factors[:, None, None] if isinstance(self.layer, nn.Conv2d) else factors
        return torch.addcmul(x, x, shaped, value=self.multiplier)

    def delta_weight(self) -> Tensor:
        weight, factors = self.frozen_weight(), self.factors()
        rows = weight.flatten(2) if weight.ndim > 2 else weight[:, :, None]  # (out, in, pixels)
        shaped = factors[None, :, None] if self.stands == "before" else factors[:, None, None]
        return (rows * shaped).view(weight.shape)


def check_arguments(arguments: dict[str, str]) -> None:
    """Raises UserError for --network_args that IA3 does not know or whose values are wrong."""
    warn_of_idle(_read(arguments))


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
    """A new IA3 for the given parts of a model. It is not attached yet.

    dim, alpha: without effect.
    dropout: probability that a factor is 1 in a step.
    arguments: see NetworkArguments.
    """
    warn_of_idle_alpha(alpha, MODULE, _NO_RANK)
    if dim is not None:
        warn(f"--network_dim has no effect with {MODULE}: {_NO_RANK}")
    return build_in_blocks(
        model,
        KIND,
        _read(arguments),
        dim=1,
        alpha=None,
        dropout=dropout,
        parts=parts,
        seed=seed,
        like=like,
        new=_new,
        known=_known,
        covers=lambda point: point.path.endswith((*OUTPUTS, *INPUTS)),
    )


def from_file(model: Model, path: Path) -> Network:
    """The IA3 in a file, for a model. Raises UserError when it is none or does not fit the model."""
    return blocks_from_file(model, path, KIND, _known)


def module_of_file(point: AttachPoint, shapes: Shapes, source: Path | None = None) -> IA3Module:
    """A module for tensors of these shapes in a file, whose values come later. Raises UserError when
    they do not fit.
    """
    return _known(point, Size(1, 0.0), shapes, source)


def _read(arguments: dict[str, str]) -> NetworkArguments:
    return NetworkArguments(**read_own_values(arguments, {}, MODULE, REFUSED))


def _new(point: AttachPoint, _: Size) -> IA3Module:
    on_input = point.path.endswith(INPUTS)
    return IA3Module(point, (point.module.weight.shape[int(on_input)],), on_input=on_input)


def _known(point: AttachPoint, _: Size, shapes: Shapes, source: Path | None) -> IA3Module:
    if PEFT_FACTORS in shapes:
        return _known_to_peft(point, shapes[PEFT_FACTORS], source)
    if missing := sorted({"weight", "on_input"} - shapes.keys()):
        raise UserError.of(source, f"{point.path} has no {missing[0]}", "the file is not whole; get it again")
    out, into, *kernel = point.module.weight.shape
    ones = (1,) * len(kernel)
    shape = shapes["weight"]
    fitting = [(1, width, *ones) if kernel else (width,) for width in (out, into)]
    if shape not in fitting:
        raise does_not_fit(source, "weight", shape, point)
    # Which it is stands in on_input, whose value comes later; a new one, like a file, goes by its layer.
    return IA3Module(point, shape, on_input=point.path.endswith(INPUTS))


def _known_to_peft(point: AttachPoint, shape: tuple[int, ...], source: Path | None) -> IA3Module:
    out, into, *kernel = point.module.weight.shape
    ones = (1,) * len(kernel)
    of_outputs, of_inputs = ((1, out, *ones), (1, into, *ones)) if kernel else ((out, 1), (1, into))
    if shape not in (of_outputs, of_inputs):
        raise does_not_fit(source, PEFT_FACTORS, shape, point)
    if of_outputs == of_inputs:
        cause = f"{PEFT_FACTORS} of {point.path} may be factors of what the convolution is given or gives"
        raise UserError.of(source, cause, "leave such convolutions out of PEFT's target_modules")
    width = into if shape == of_inputs else out
    return IA3Module(point, (1, width, *ones) if kernel else (width,), on_input=shape == of_inputs)
