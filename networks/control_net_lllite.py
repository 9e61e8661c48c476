"""ControlNet-LLLite: a picture (outlines, depth, ...) says where things are, through small modules before the
attention of the U-Net's first half.

    x -> x + m * up(ReLU(mid([c ; ReLU(down(x))])))     c = conditioning1(picture)

They stand before queries, keys and values of self-attention and before queries of cross-attention. The
convolutions of `conditioning1` bring the picture, -1..1, to the layer's places; their number is the depth: 1
where the U-Net works at an eighth of the picture, 2 at a sixteenth, 3 at a thirty-second. Files are
sd-scripts', also for SD 1.x and 2.x, for which it trains none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from library.models.base import AttachPoint, Model
from library.models.condition import Condition
from library.network.arguments import READERS
from library.network.block_arguments import read_own_values
from library.network.block_building import does_not_fit, warn_of_idle_alpha
from library.network.family import Shapes
from library.network.hinted import HintedNetwork
from library.network.kinds import KINDS
from library.network.matching import read_for
from library.network.module import NetworkModule
from library.network.names import targets
from library.network.network import Network
from library.problems import UserError
from library.randomness import keyed_generator

KIND = "lllite"
MODULE = "networks.control_net_lllite"
TARGETS = (".attn1.to_q", ".attn1.to_k", ".attn1.to_v", ".attn2.to_q")
DIM, COND_EMB_DIM = 64, 32
# By depth, the kernels of the convolutions, which are also their strides.
KERNELS = {1: (4, 2), 2: (4, 4), 3: (4, 4, 2)}
_NOT_BY_LAYER = dict.fromkeys(READERS, "its modules are all of one size, which --network_dim says")


class LLLiteModule(NetworkModule):
    """What a picture adds to what one layer is given. Without a picture it adds nothing.

    hint: the picture (batch, 3, h, w) in 0..1, for all forward and backward passes until the next one.
    """

    stands = "before"
    follows_dtype: ClassVar[bool] = True
    why_not_merged = "a ControlNet-LLLite depends on a picture, which no weight can hold"

    def __init__(
        self, point: AttachPoint, *, depth: int, dim: int, cond_emb_dim: int, dropout: float = 0.0
    ) -> None:
        super().__init__(point)
        width, kernels = self.weight_shape[1], KERNELS[depth]
        inner = cond_emb_dim // 2
        channels = (3, *[inner] * (len(kernels) - 1), cond_emb_dim)
        layers: list[nn.Module] = []
        for (into, out), kernel in zip(pairwise(channels), kernels, strict=True):
            layers += [nn.Conv2d(into, out, kernel, stride=kernel), nn.ReLU()]
        self.conditioning1 = nn.Sequential(*layers[:-1])  # the last has no ReLU
        self.down = nn.Sequential(nn.Linear(width, dim), nn.ReLU())
        self.mid = nn.Sequential(nn.Linear(cond_emb_dim + dim, dim), nn.ReLU())
        self.up = nn.Sequential(nn.Linear(dim, width))
        self.depth, self.dropout, self.strides = depth, dropout, kernels
        self.hint: Tensor | None = None
        self._seen: tuple[Tensor, Tensor] | None = None  # the latest picture in use, and its embedding

    def initialize(self, generator: torch.Generator) -> None:
        """Torch's own values, but `up` is zero with its bias: nothing is changed yet."""
        for weight, bias in self._layers():
            bound = weight[0].numel() ** -0.5
            nn.init.uniform_(weight, -bound, bound, generator=generator)
            nn.init.uniform_(bias, -bound, bound, generator=generator)
        for value in self.up.parameters():
            nn.init.zeros_(value)

    def change_input(self, x: Tensor) -> Tensor:
        """x: (batch, places, width)."""
        if self.hint is None or not self.multiplier:
            return x
        *convolutions, down, mid, up = _pairs(self.weights_in(x.dtype))
        c = self._embedding(self.hint, convolutions, x)  # (batch, places, emb)
        u = F.linear(x, *down).relu()
        v = F.linear(torch.cat([c, u], dim=-1), *mid).relu()
        v = F.dropout(v, self.dropout, self.training)
        return torch.add(x, F.linear(v, *up), alpha=self.multiplier)

    def _embedding(self, hint: Tensor, convolutions: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
        """What the layer's places see of the picture (batch, places, emb). In use it is computed once for a
        picture, not at every step.
        """
        keeps = not (self.training or torch.is_grad_enabled())
        if keeps and self._seen is not None and self._seen[0] is hint and self._seen[1].dtype == x.dtype:
            return self._seen[1]
        c = hint.to(x.dtype) * 2 - 1
        for place, (weight, bias) in enumerate(convolutions):
            c = F.conv2d(c.relu() if place else c, weight, bias, stride=self.strides[place])
        c = self._at_places(c, hint, x.shape[1]).flatten(2).transpose(1, 2)
        if keeps:
            self._seen = (hint, c)
        return c

    def _at_places(self, c: Tensor, hint: Tensor, places: int) -> Tensor:
        """c as (batch, emb, h, w) of the layer: the U-Net rounds up sides that no stride divides."""
        height, width = (_side(side, self.depth) for side in hint.shape[2:])
        assert height * width == places, f"a picture of {tuple(hint.shape[2:])} for {places} places"
        return (
            c if c.shape[2:] == (height, width) else F.interpolate(c, (height, width), mode="nearest-exact")
        )

    def _layers(self) -> list[tuple[Tensor, Tensor]]:
        return _pairs(list(self.parameters()))

    def took_values(self) -> None:
        self.forget()

    def train(self, mode: bool = True) -> LLLiteModule:
        self.forget()
        super().train(mode)
        return self

    def forget(self) -> None:
        """Its weights are others now."""
        self._seen = None


class LLLite(HintedNetwork):
    """All modules. Each prediction's picture is the condition's."""

    def before_forward(self, t: Tensor, condition: Condition) -> None:
        hint = self.hint_in(condition)
        for module in self.by_name.values():
            assert isinstance(module, LLLiteModule)
            module.hint = hint


def check_arguments(arguments: dict[str, str]) -> None:
    """Raises UserError for --network_args that it does not know or whose values are wrong."""
    _cond_emb_dim(arguments)


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
    """A new LLLite for the U-Net of a model. It is not attached yet.

    dim: the inner width of the modules.
    alpha: without effect.
    dropout: the probability of dropping a value before `up`.
    arguments: cond_emb_dim, the width of what a place sees of the picture.
    like: a file whose layers and widths it has instead; not its values.
    """
    if "unet" not in parts:
        raise UserError.of("--network_train_text_encoder_only", f"{MODULE} is for the U-Net only")
    warn_of_idle_alpha(alpha, MODULE, "its modules have no scale")
    modules: Mapping[str, LLLiteModule]
    drop = dropout or 0.0
    if like is None:
        width = _cond_emb_dim(arguments)
        modules = {
            name: LLLiteModule(point, depth=depth, dim=dim or DIM, cond_emb_dim=width, dropout=drop)
            for name, (point, depth) in _targets(model).items()
        }
    else:
        file = read_for(model, like, KIND)
        modules = {n: _known(point, file.shapes(n), like, drop) for n, point in file.points.items()}
    for name, module in modules.items():
        if not any(parameter.is_meta for parameter in module.parameters()):
            module.initialize(keyed_generator(seed, KIND, name))
    return LLLite(modules, dim=dim or DIM, alpha=None, kind=KIND, model=model)


def from_file(model: Model, path: Path) -> Network:
    """The LLLite in a file, for a model, neither attached nor trained. Raises UserError when it is none or
    does not fit the model.
    """
    file = read_for(model, path, KIND)
    modules = {name: _known(point, file.shapes(name), path) for name, point in file.points.items()}
    network = LLLite(modules, dim=None, alpha=None, kind=KIND, model=model)
    network.take(file, file.points, str(path))
    return network.requires_grad_(False).eval()


def _targets(model: Model) -> dict[str, tuple[AttachPoint, int]]:
    """The layers that get modules and the depth of each, by the modules' names. Layers that work at no depth
    are left out: the middle of SD 1.x, at a sixty-fourth.
    """
    spans = model.block_spans()
    shrinking = [_block(point) for point in model.attach_points() if point.parent == "Downsample2D"]
    depths = {8 * 2 ** (depth - 1): depth for depth in KERNELS}  # by how many pixels a place is wide
    own = targets(model, ("unet",), ("Transformer2DModel",), KINDS[KIND].prefix, is_original=True)
    found = {}
    for name, point in own.items():
        if _block(point) not in (*spans.down, *spans.mid) or not point.path.endswith(TARGETS):
            continue
        levels = sum(block < _block(point) for block in shrinking)
        pixels = model.latent_space.pixels_per_latent * 2**levels
        if pixels in depths:
            found[name] = (point, depths[pixels])
    return found


def _block(point: AttachPoint) -> int:
    assert point.block is not None  # it is in the denoiser
    return point.block


def _known(point: AttachPoint, shapes: Shapes, source: Path, dropout: float = 0.0) -> LLLiteModule:
    """The module whose tensors have these shapes. Its depth is what they say, as ComfyUI reads them."""
    first, second = shapes["conditioning1.0.weight"], shapes["conditioning1.2.weight"]
    down = shapes["down.0.weight"]
    if len(down) != 2 or down[1] != point.module.weight.shape[1]:
        raise does_not_fit(source, "down.0.weight", down, point)
    if len(first) != 4 or len(second) != 4:
        raise does_not_fit(source, "conditioning1", first, point)
    depth = 3 if "conditioning1.4.weight" in shapes else 2 if second[2] == 4 else 1
    return LLLiteModule(point, depth=depth, dim=down[0], cond_emb_dim=2 * first[0], dropout=dropout)


def _cond_emb_dim(arguments: Mapping[str, str]) -> int:
    found = read_own_values(arguments, {"cond_emb_dim": _even}, MODULE, _NOT_BY_LAYER)
    return int(found.get("cond_emb_dim", COND_EMB_DIM))


def _even(text: str) -> int:
    if not text.strip().isdecimal() or not int(text) or int(text) % 2:
        raise ValueError("expects an even number of 2 or more")
    return int(text)


def _side(pixels: int, depth: int) -> int:
    """How many places there are along a side of the picture, as the U-Net counts them."""
    side = pixels // 8
    for _ in range(depth - 1):
        side = -(-side // 2)
    return side


def _pairs(values: Collection[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases that follow one another."""
    each = iter(values)
    return list(zip(each, each, strict=True))
