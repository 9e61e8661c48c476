"""What a network adds to one layer of a model, or to several: the module that stands beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from library.models.base import AttachPoint
from library.models.float8 import Float8Conv2d, Float8Linear
from library.network.sizes import Size
from library.problems import UserError

HALVES = (torch.float16, torch.bfloat16)
# How a layer that may be computed together with its change computes.
_PLAIN = (nn.Linear.forward, nn.Conv2d.forward, Float8Linear.forward, Float8Conv2d.forward)
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)  # torch asks so too


class NetworkModule(nn.Module):
    """A trained change of one layer, or of several. The layers themselves are no children of it.

    A kind says what its change is by overriding one of these, and everything else follows:

    * `delta_weight`: the change of the layer's weight. Simple, and right for every kind that is one.
    * `add_to`: the layer's output with this module's addition, without a matrix of the layer's size (LoRA).
    * `change`: any new output, from the layer's output, its input and its frozen weight (OFT, DoRA).
    * `change_input`, with `stands = "before"`: what the layer is given (hypernetworks). Where only some rows
      of a layer are its own, one of the others is used instead.
    * `forward_with_layer`, with `stands = "instead"`, beside one of the others: the layer and its change in
      one function, for speed; called where `computes_together`.

    With `follows_dtype` it promises to compute in the type of what the layer is given, with its weights as
    `weights_in` gives them, so that a step casts those of all modules at once. Others run under autocast
    where a layer computes in 16 bits. Beside `forward_with_layer` it may have a `forward_together`, for
    layers that are given the same input.

    At multiplier m the layer is W + m * (W' - W), whatever the kind: 0 is off, 1 is as trained. Where several
    modules stand at one layer, each sees what those attached before it gave.

    points: where it stands; their facts are also the module's: its part, text encoder and block.
    multiplier: how strongly it counts.
    region: how strongly it counts at each place, 0..1: what the layer gives, or with `stands = "before"` what
    it is given -> factors that broadcast to it. None: everywhere alike.
    """

    stands: Literal["after", "before", "instead"] = "after"
    follows_dtype: ClassVar[bool] = False
    why_not_merged: ClassVar[str] = ""  # the reason why it cannot be part of a weight; empty when it can

    rank: int
    alpha: Tensor
    scale: float

    def __init__(self, *points: AttachPoint, size: Size | None = None) -> None:
        """size: rank and alpha, for kinds that count alpha / rank: they get `rank`, the buffer `alpha`, which
        files hold, and `scale`.
        """
        super().__init__()
        self.points = points
        self.multiplier = 1.0
        self.region: Callable[[Tensor], Tensor] | None = None
        self._undo: list[Callable[[], None]] = []  # what takes it off its layers again
        self._copies: list[Tensor] = []  # `computed_with` in the type of the step; empty: none were made
        if size is not None:
            alpha = size.alpha or size.rank
            self.rank = size.rank
            self.register_buffer("alpha", torch.tensor(float(alpha)))
            self.scale = alpha / size.rank  # a number beside the buffer: reading it would wait for the device

    @property
    def layer(self) -> nn.Linear | nn.Conv2d:
        """The layer, or the first of several."""
        return self.points[0].module

    @property
    def part(self) -> str:
        """The part of the model: "unet" or "te"."""
        return self.points[0].part

    @property
    def text_encoder(self) -> int | None:
        """Which text encoder it is in (0-based); None in the U-Net."""
        return self.points[0].text_encoder

    @property
    def block(self) -> int | None:
        """The number of its block in the U-Net."""
        return self.points[0].block

    @property
    def weight_shape(self) -> torch.Size:
        """The shape of what it changes: the layer's weight, or its rows of it."""
        return torch.Size(weight_shape(self.points[0]))

    def frozen_weight(self, point: AttachPoint | None = None) -> Tensor:
        """A layer's own weight (its rows of it), float32 whatever type it is kept in, without gradients.

        point: which layer's, of several.
        """
        point = point or self.points[0]
        weight = rows_of(point, point.module.weight).detach().float()
        own = next(self.parameters(), weight)  # between steps, the layer may wait in main memory
        return weight.to(own.device)

    def attach(self) -> None:
        """From now on the model computes with this module. Several modules can stand at one layer."""
        if not self._undo:
            self._undo = [self._attach_at(point) for point in self.points]

    def detach(self) -> None:
        """Take it off again; no trace is left on the layers."""
        for undo in self._undo:
            undo()
        self._undo = []

    def _attach_at(self, point: AttachPoint) -> Callable[[], None]:
        """Returns what undoes it."""
        layer = point.module
        if self.stands == "before" and point.rows is None:
            handle = layer.register_forward_pre_hook(lambda _, x: (self._before(x[0]), *x[1:]))
            return handle.remove
        # Only one can take the layer's place: a second one changes what the first one gives.
        is_alone = len(self.points) == 1 and point.rows is None and "forward" not in vars(layer)
        if self.stands == "instead" and is_alone:
            vars(layer)["forward"] = self._forward_instead
            return partial(vars(layer).pop, "forward")
        handle = layer.register_forward_hook(lambda _, inputs, out: self._after(point, out, inputs[0]))
        return handle.remove

    def _before(self, x: Tensor) -> Tensor:
        with self._precision(x):
            changed = self.change_input(x)
        changed = changed if self.region is None else x + self.region(x) * (changed - x)
        return changed.to(x.dtype)

    def _after(self, point: AttachPoint, out: Tensor, x: Tensor) -> Tensor:
        with self._precision(out):
            changed = self.change_at(point, out, x)
        changed = changed if self.region is None else out + self.region(out) * (changed - out)
        return changed.to(out.dtype)

    def _forward_instead(self, x: Tensor) -> Tensor:
        if self.region is None and self.computes_together(x):
            return self.forward_with_layer(x)
        layer: nn.Module = self.layer
        return self._after(self.points[0], type(layer).forward(layer, x), x)

    def _precision(self, x: Tensor) -> AbstractContextManager[object]:
        """Context manager; inside it, weights and inputs of different types can be multiplied."""
        if self.follows_dtype or x.dtype not in HALVES or torch.is_autocast_enabled(x.device.type):
            return nullcontext()
        return torch.autocast(x.device.type, x.dtype)

    def computes_together(self, x: Tensor) -> bool:
        """Whether `forward_with_layer` is called for x. A kind may ask for more than the layer must have."""
        return self.is_replaceable(x)

    def is_replaceable(self, x: Tensor) -> bool:
        """Whether the layer is a plain one that is frozen, and there is no autocast."""
        layer = self.layer
        is_plain = type(layer).forward in _PLAIN and not layer.weight.requires_grad
        return is_plain and not torch.is_autocast_enabled(x.device.type)

    @classmethod
    def joins(cls) -> bool:
        """Whether the class has a `forward_together` of its own: a subclass may compute otherwise."""
        return cls.follows_dtype and "forward_together" in vars(cls)

    def may_join(self) -> bool:
        """Whether `forward_together` may stand in for its layer in this step: nobody else changes what the
        layer is given or gives.
        """
        layer = self.layer
        stands = vars(layer).get("forward") == self._forward_instead and self.region is None
        return stands and not any(getattr(layer, name) for name in _HOOKS)

    def computed_with(self) -> tuple[Tensor, ...]:
        """The weights that a step computes with: what `weights_in` gives in the step's type."""
        return tuple(self.parameters())

    def weights_in(self, dtype: torch.dtype) -> Sequence[Tensor]:
        """`computed_with` in a dtype: the copies that were made for the step, else new ones."""
        if self._copies and self._copies[0].dtype == dtype:
            return self._copies
        return [weight.to(dtype) for weight in self.computed_with()]

    def use_copies(self, copies: Sequence[Tensor]) -> None:
        """From now on `weights_in` gives these where their type is asked for; none: no longer."""
        self._copies[:] = copies

    def change_at(self, point: AttachPoint, out: Tensor, x: Tensor) -> Tensor:
        """The new output of a point's layer. A module whose points differ in more than their layer overrides
        it, together with `delta_weight_at`.
        """
        if point.rows is None:
            return self.change(out, x)
        dim = 1 if isinstance(point.module, nn.Conv2d) else -1
        start, stop, end = point.rows.start, point.rows.stop, out.shape[dim]
        before, own, behind = out.split([start, stop - start, end - stop], dim)
        return torch.cat([before, self.change(own, x), behind], dim)

    def change(self, out: Tensor, x: Tensor) -> Tensor:
        """The new output, in the shape of `out`, what the layer gives for x (its rows of it)."""
        return self.add_to(out, x)

    def add_to(self, out: Tensor, x: Tensor) -> Tensor:
        """`out`, the layer's output for x, with this module's addition. Shapes as the layer's."""
        return out + self.as_layer(x, self.delta_weight().to(x.dtype)) * self.multiplier

    def as_layer(self, x: Tensor, weight: Tensor) -> Tensor:
        """What the layer would give for x with this weight, in x's type, and no bias."""
        layer = self.layer
        if isinstance(layer, nn.Conv2d):
            return F.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
        return F.linear(x, weight)

    def change_input(self, x: Tensor) -> Tensor:
        """What the layer is given for x, in its shape. Modules that change outputs see the changed input."""
        raise NotImplementedError

    def forward_with_layer(self, x: Tensor) -> Tensor:
        """What the layer followed by `change` gives for x, in x's type. The layer's weight may be kept in
        float8.
        """
        raise NotImplementedError

    @staticmethod
    def forward_together(
        modules: Sequence[Any], x: Tensor, stack: Tensor, *others: Tensor
    ) -> Sequence[Tensor]:
        """What `forward_with_layer` of each of the modules gives for x; all are of this class.

        stack: the first of each module's `weights_in`, one below the other.
        others: the second of each, then the third of each and so on.
        """
        raise NotImplementedError

    def delta_weight(self) -> Tensor:
        """W' - W: the change of the layer's weight (its rows of it) at multiplier 1; its shape, float32."""
        raise NotImplementedError

    def delta_weight_at(self, point: AttachPoint) -> Tensor:
        """The change of the weight of a point's layer."""
        return self.delta_weight()

    def check_merge(self) -> None:
        """Raises UserError when the change is no change of weights."""
        if self.why_not_merged:
            raise UserError.of("the network", f"cannot be merged into the model: {self.why_not_merged}")

    @torch.no_grad()
    def merge(self) -> None:
        """Add the change to the layers' weights; the module is detached after that."""
        self.check_merge()
        self.detach()
        for point in self.points:
            weight = rows_of(point, point.module.weight)
            weight.copy_(weight.float() + self.delta_weight_at(point).to(weight.device) * self.multiplier)

    def file_tensors(self) -> dict[str, Tensor]:
        """Its tensors as files have them, by their names there. Views, where a shape differs."""
        return self.state_dict()

    def in_file_shapes(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Matrices as 1x1 convolutions, where files have the layer as one. Views."""
        if not self.points[0].is_1x1_in_files:
            return dict(tensors)
        return {key: value[:, :, None, None] if value.ndim == 2 else value for key, value in tensors.items()}

    def from_file_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Its state when a file has these tensors: the other way of `file_tensors`."""
        return dict(tensors)

    def initialize(self, generator: torch.Generator) -> None:
        """Set the values that training begins with; the module changes nothing yet."""
        raise NotImplementedError

    def took_values(self) -> None:
        """Called after values were loaded: numbers kept beside tensors are read anew."""
        if hasattr(self, "alpha"):
            self.scale = float(self.alpha) / self.rank

    def plus_parameters(self) -> list[nn.Parameter]:
        """Those that learn faster with LoRA+."""
        return []

    def change_norm(self) -> Tensor:
        """The Frobenius norm of `delta_weight`; a float32 scalar on the device."""
        return self.delta_weight().norm()

    def check_norms(self) -> None:
        """Raises UserError when it is of a kind whose change cannot be scaled."""
        if type(self).scale_change is NetworkModule.scale_change:
            cause = "networks of this kind have no norms that can be limited"
            raise UserError.of("--scale_weight_norms", cause, "leave it out")

    def scale_change(self, factor: Tensor) -> None:
        """Multiply `delta_weight` by a scalar, by changing what is trained. Raises UserError for kinds that
        cannot be scaled.
        """
        self.check_norms()


def weight_shape(point: AttachPoint) -> tuple[int, ...]:
    """The shape of what a module at a point changes: the layer's weight, or its rows of it."""
    return tuple(rows_of(point, point.module.weight).shape)


def rows_of(point: AttachPoint, values: Tensor, dim: int = 0) -> Tensor:
    """A point's rows of its layer's weight, or its share of what the layer gives along `dim`. Not a copy."""
    return values if point.rows is None else values.narrow(dim, point.rows.start, len(point.rows))
