"""How a network gets its modules: for which layers, how large, new or from a file. Every kind shares it.

A kind gives a function that makes one module; its `create` and `from_file` are then a few lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from library.models.base import AttachPoint, Model
from library.network.arguments import NetworkArguments, warn_of_fixed_sizes, warn_of_other_parts
from library.network.blocks import Blocks, settle_blocks
from library.network.family import Shapes
from library.network.kinds import KINDS
from library.network.matching import read_for
from library.network.module import NetworkModule
from library.network.names import targets
from library.network.network import Network
from library.network.patterns import first_rule, fits
from library.network.rates import Rates
from library.network.sizes import Size
from library.problems import warn
from library.randomness import keyed_generator

LINEAR_PARENTS = ("CLIPAttention", "CLIPMLP", "Transformer2DModel")
CONV_PARENTS = ("ResnetBlock2D", "Downsample2D", "Upsample2D")

DEFAULT_DIM = 4

# (where it stands, its rank and alpha, the shapes of its tensors in a file; none for a new one)
MakeModule = Callable[[AttachPoint, Size, Shapes], NetworkModule]


@dataclass(frozen=True)
class Plan:
    """What a new network consists of.

    points: where its modules stand, by their names.
    sizes: how large each is; rank 0: there is none, unless it has shapes.
    shapes: of the tensors of each, where they are to be as in a file.
    dim, alpha: what the network says of itself.
    rates: how learning rates differ inside it.
    """

    points: Mapping[str, AttachPoint]
    sizes: Mapping[str, Size]
    shapes: Mapping[str, Shapes]
    dim: int | None
    alpha: float | None
    rates: Rates


def plan_network(
    model: Model,
    kind: str,
    asked: NetworkArguments,
    *,
    dim: int | None,
    alpha: float | None,
    parts: Iterable[str],
    like: Path | None = None,
) -> Plan:
    """What --network_dim and --network_args mean for a model. Raises UserError when they do not fit it.

    kind: a name in KINDS.
    dim: the rank where nothing else is asked for; None is 4.
    alpha: likewise; None is 1, and 0 means dim.
    parts: which parts of the model get modules: "unet", "te".
    like: a file whose layers, ranks and alphas it has instead; not its values.
    """
    alpha = 1.0 if alpha is None else alpha
    parts, plain = set(parts), Size(dim or DEFAULT_DIM, alpha)
    warn_of_other_parts(asked, parts)
    blocks = settle_blocks(asked, model.block_spans(), plain)
    has_all = asked.has_convolutions or like is not None
    parents = (*LINEAR_PARENTS, *CONV_PARENTS) if has_all else LINEAR_PARENTS
    points = targets(model, parts, parents, KINDS[kind].prefix)
    rates = Rates(blocks.weights, asked.rate_ratios, asked.network_reg_lrs)
    if like is None:
        points = _chosen(points, asked)
        sizes = {name: _size_of(point, blocks, plain, asked) for name, point in points.items()}
        return Plan(points, sizes, {}, plain.rank, alpha, rates)
    warn_of_fixed_sizes(asked)
    file = read_for(model, like, kind)
    points |= {name: point for name, point in file.points.items() if point.part in parts}
    chosen = [name for name in file.points if name in points]
    sizes = {name: file.size(name) for name in chosen}
    shapes = {name: file.shapes(name) for name in chosen}
    return Plan(points, sizes, shapes, _common(size.rank for size in sizes.values()), None, rates)


def build_network(model: Model, kind: str, plan: Plan, make: MakeModule, *, seed: int) -> Network:
    """A new network, not attached yet.

    make: makes one module.
    seed: first values depend on it, the kind and a module's name alone.
    """
    modules = {
        name: make(plan.points[name], size, plan.shapes.get(name, {}))
        for name, size in plan.sizes.items()
        if size.rank or name in plan.shapes
    }
    for name, module in modules.items():
        if not any(parameter.is_meta for parameter in module.parameters()):
            module.initialize(keyed_generator(seed, kind, name))
    return Network(modules, dim=plan.dim, alpha=plan.alpha, rates=plan.rates, kind=kind, model=model)


def network_from_file(model: Model, path: Path, kind: str, make: MakeModule) -> Network:
    """The network in a file, with its own ranks and alphas, for a model; neither attached nor trained.

    Raises UserError when the file is of another kind or does not fit the model.
    """
    file = read_for(model, path, kind)
    modules = {name: make(point, file.size(name), file.shapes(name)) for name, point in file.points.items()}
    network = Network(modules, dim=None, alpha=None, kind=kind, model=model)
    network.take(file, file.points, str(path))
    return network.requires_grad_(False).eval()


def _chosen(points: Mapping[str, AttachPoint], asked: NetworkArguments) -> dict[str, AttachPoint]:
    """Those that get modules: all but those that exclude_patterns fit and include_patterns do not. A pattern
    that fits none of the layers is a warning.
    """
    for name in ("exclude_patterns", "include_patterns"):
        _warn_of_misses(name, getattr(asked, name), points)
    for name in ("network_reg_dims", "network_reg_lrs"):
        _warn_of_misses(name, [pattern for pattern, _ in getattr(asked, name)], points)
    return {
        name: point
        for name, point in points.items()
        if not any(fits(pattern, point) for pattern in asked.exclude_patterns)
        or any(fits(pattern, point) for pattern in asked.include_patterns)
    }


def _warn_of_misses(name: str, patterns: Sequence[str], points: Mapping[str, AttachPoint]) -> None:
    for pattern in patterns:
        if not any(fits(pattern, point) for point in points.values()):
            path = next((point.path for point in points.values()), "")
            warn(
                f"--network_args {name}: {pattern} fits none of the layers that get modules; "
                f"their paths are like {path}"
            )


def _size_of(point: AttachPoint, blocks: Blocks, plain: Size, asked: NetworkArguments) -> Size:
    size = plain
    if point.block is not None:
        sizes = blocks.sizes[point.block]
        is_large = isinstance(point.module, nn.Conv2d) and point.module.kernel_size != (1, 1)
        size = sizes.conv if is_large else sizes.linear
        if blocks.weights is not None and not blocks.weights[point.block]:
            return size  # a block that does not learn has no modules
    rule = first_rule(asked.network_reg_dims, point)
    return size if rule is None else Size(rule[1], size.alpha)


def _common(ranks: Iterable[int]) -> int | None:
    """The rank that all have; None when they differ."""
    found = set(ranks)
    return found.pop() if len(found) == 1 else None
