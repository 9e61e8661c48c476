"""What `create` and `from_file` of additive kinds share: arguments; modules new or like a file's."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from library.models.base import AttachPoint, Model
from library.network.additive import MAGNITUDE, PLAIN, AdditiveModule, Axis, Variant, magnitude_shape
from library.network.arguments import READERS, NetworkArguments, read_values, switch, warn_of_idle
from library.network.building import Plan, build_network, network_from_file, plan_network
from library.network.family import Shapes
from library.network.network import Network
from library.network.sizes import Size
from library.problems import UserError, warn

# (where it stands, its rank and alpha, its variant, the shapes of its tensors in a file; none for a new one)
MakeAdditive = Callable[[AttachPoint, Size, Variant, Shapes], AdditiveModule]


@dataclass(frozen=True)
class AdditiveArguments(NetworkArguments):
    """What --network_args ask for, for kinds that add to a weight.

    rank_dropout_scale: whether what rank_dropout leaves is scaled up.
    rs_lora: the scale is alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732).
    use_scalar: a learned number multiplies each module's change; files have it in a factor.
    use_tucker: kernels of more than 1x1 are a product of their own.
    dora_wd: DoRA.
    wd_on_output: its magnitudes are those of outputs, not of inputs.
    """

    rank_dropout_scale: bool = True
    rs_lora: bool = False
    use_scalar: bool = False
    use_tucker: bool = False
    dora_wd: bool = False
    wd_on_output: bool = False

    @property
    def dora(self) -> Axis | None:
        """The axis of DoRA's magnitudes; None: no DoRA."""
        axis: Axis = "output" if self.wd_on_output else "input"
        return axis if self.dora_wd else None


_SWITCHES = ("rank_dropout_scale", "rs_lora", "use_scalar", "use_tucker", "dora_wd", "wd_on_output")
ADDITIVE_READERS: dict[str, Callable[[str], Any]] = READERS | dict.fromkeys(_SWITCHES, switch)


def read_additive(
    arguments: Mapping[str, str],
    module: str,
    readers: Mapping[str, Callable[[str], Any]] = ADDITIVE_READERS,
    refused: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The values of `AdditiveArguments`, and of further arguments that have a reader.

    module: the kind that is asked, as --network_module has it.
    refused: arguments that this kind cannot have, with the reason.
    Raises UserError as `read_values`.
    """
    values = read_values(arguments, readers, module, refused)
    values.pop("verbose", None)  # sd-scripts lists layers; what is trained is in the log anyway
    return values


def warn_of_idle_additions(asked: AdditiveArguments) -> None:
    """A warning for each argument that has no effect without another."""
    warn_of_idle(asked)
    if asked.wd_on_output and not asked.dora_wd:
        warn("--network_args wd_on_output has no effect without dora_wd=true")
    if not asked.rank_dropout_scale and not asked.rank_dropout:
        warn("--network_args rank_dropout_scale has no effect without rank_dropout")
    if asked.use_tucker and not asked.has_convolutions:
        warn("--network_args use_tucker has no effect without conv_dim: it is about 3x3 convolutions")
    if asked.dora_wd:
        warn(_READERS_OF_DORA[asked.dora or "input"])


_READERS_OF_DORA: dict[Axis, str] = {
    "input": "dora_wd: AUTOMATIC1111, ComfyUI and OneTrainer read such a file; LyCORIS and diffusers cannot: "
    "they need wd_on_output=true",
    "output": "wd_on_output: LyCORIS and OneTrainer read such a file, and diffusers once it is converted; "
    "AUTOMATIC1111 and ComfyUI draw it wrongly: they need wd_on_output=false",
}


def create_additive(
    model: Model,
    kind: str,
    asked: AdditiveArguments,
    make: MakeAdditive,
    *,
    dim: int | None,
    alpha: float | None,
    dropout: float | None,
    parts: Collection[str],
    seed: int,
    like: Path | None = None,
) -> Network:
    """A new network of an additive kind, see `NetworkFactory.create`.

    kind: a name in KINDS.
    make: makes one module.
    """
    plan = plan_network(model, kind, asked, dim=dim, alpha=alpha, parts=parts, like=like)
    if asked.rs_lora and like is None:
        plan = _root_scaled(plan)
    variant = Variant(
        dropout=dropout or 0.0,
        rank_dropout=asked.rank_dropout,
        scales_dropout=asked.rank_dropout_scale,
        module_dropout=asked.module_dropout,
        has_scalar=asked.use_scalar,
        is_tucker=asked.use_tucker,
        dora=asked.dora,
    )
    if like is not None:
        for name in ("rs_lora", "use_tucker", "dora_wd"):
            if getattr(asked, name):
                warn(f"--network_args {name} has no effect with --dim_from_weights: it is as in the file")
    build = _maker(variant, make, like)
    return build_network(model, kind, plan, build, seed=seed)


def additive_from_file(model: Model, path: Path, kind: str, make: MakeAdditive) -> Network:
    """The network in a file of an additive kind, see `NetworkFactory.from_file`."""
    return network_from_file(model, path, kind, _maker(PLAIN, make, path))


def check_shapes(point: AttachPoint, wanted: Shapes, given: Shapes, source: Path | None, title: str) -> None:
    """Raises UserError when a file's tensors do not fit the layer, before a module takes memory for a rank
    that a small file may claim.

    wanted: the shapes that the module's tensors have.
    given: those in the file; none for a new module.
    title: what messages call the kind.
    """
    for tensor in {**wanted, **given} if given else ():
        if tensor == "alpha":
            continue
        if tensor not in given:
            raise UserError.of(source, f"{point.path} has no {tensor}", "the file is not whole; get it again")
        if tensor not in wanted or math.prod(given[tensor]) != math.prod(wanted[tensor]):
            cause = f"{tensor} of {point.path} is {given[tensor]}, which does not fit the model's layer"
            raise UserError.of(source, cause, f"use a {title} that was made for this kind of model")


def with_magnitudes(shapes: Shapes, weight: tuple[int, ...], variant: Variant) -> Shapes:
    """The shapes of a module's factors, and that of DoRA's magnitudes where it has them."""
    magnitudes = magnitude_shape(weight, variant.dora)
    return {**shapes, MAGNITUDE: magnitudes} if magnitudes else shapes


def _maker(
    variant: Variant, make: MakeAdditive, source: Path | None
) -> Callable[[AttachPoint, Size, Shapes], AdditiveModule]:
    """A module is as its tensors in the file are, where there is one."""

    def module(point: AttachPoint, size: Size, shapes: Shapes) -> AdditiveModule:
        own = variant
        if shapes:
            own = replace(variant, is_tucker=False, dora=_axis_of(point, shapes.get(MAGNITUDE), source))
        return make(point, size, own, shapes)

    return module


def _axis_of(point: AttachPoint, magnitudes: tuple[int, ...] | None, source: Path | None) -> Axis | None:
    """Which axis of the layer's weight a file's magnitudes are along. Raises UserError for neither."""
    if magnitudes is None:
        return None
    out, inputs = point.module.weight.shape[:2]
    if point.rows is not None:
        out = len(point.rows)
    axes: dict[tuple[int, ...], Axis] = {(1, inputs): "input", (out, 1): "output"}
    if (axis := axes.get(magnitudes[:2])) is None or math.prod(magnitudes[2:]) != 1:
        cause = (
            f"{MAGNITUDE} of {point.path} is {magnitudes}, the layer has {inputs} inputs and {out} outputs"
        )
        raise UserError.of(source, cause, "use a DoRA that was made for this kind of model")
    return axis


def _root_scaled(plan: Plan) -> Plan:
    """alpha * sqrt(rank) / rank is alpha / sqrt(rank): programs that know of no such scale read it right."""
    sizes = {
        name: Size(size.rank, (size.alpha or size.rank) * math.sqrt(size.rank))
        for name, size in plan.sizes.items()
    }
    return replace(plan, sizes=sizes)
