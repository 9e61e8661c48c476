"""How kinds that change layers block by block get their modules. Every such kind shares it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from library.models.base import AttachPoint, Model
from library.network.arguments import NetworkArguments
from library.network.block_arguments import block_dropout
from library.network.building import build_network, network_from_file, plan_network
from library.network.family import Shapes
from library.network.network import Network
from library.network.rotating import BlockModule
from library.network.sizes import Size
from library.problems import UserError, warn

# A new module of a size; None: the layer cannot have one.
New = Callable[[AttachPoint, Size], BlockModule | None]
# The module in a file whose tensors have these shapes; its size holds the file's alpha. Raises UserError when
# it does not fit the layer, naming the source.
Known = Callable[[AttachPoint, Size, Shapes, Path | None], BlockModule]


def build_in_blocks(
    model: Model,
    kind: str,
    asked: NetworkArguments,
    *,
    dim: int,
    alpha: float | None,
    dropout: float | None,
    parts: Collection[str],
    seed: int,
    like: Path | None,
    new: New,
    known: Known,
    covers: Callable[[AttachPoint], bool] = lambda point: True,
) -> Network:
    """A new network, not attached yet. Layers that can have no module are named in one warning.

    alpha: what counts as one; None: the kind has none.
    new, known: make one module.
    covers: whether a layer is to have one, unless a file says so.
    Raises UserError when no layer can have one.
    """
    plan = plan_network(model, kind, asked, dim=dim, alpha=alpha, parts=parts, like=like)
    plan = replace(plan, alpha=alpha, dim=None if like else plan.dim)
    drop, made, skipped = block_dropout(dropout, asked.rank_dropout), {}, []
    for name, size in plan.sizes.items():
        shapes = plan.shapes.get(name)
        point = plan.points[name]
        if shapes is None and not (size.rank and covers(point)):
            continue
        module = new(point, size) if shapes is None else known(point, size, shapes, like)
        if module is None:
            skipped.append(point)
            continue
        module.block_dropout, module.module_dropout = drop, asked.module_dropout
        made[name] = module
    if skipped:
        _tell(skipped, kind, dim, bool(made))
    sizes = {name: size for name, size in plan.sizes.items() if name in made}
    names = iter(sizes)
    return build_network(model, kind, replace(plan, sizes=sizes), lambda *_: made[next(names)], seed=seed)


def blocks_from_file(model: Model, path: Path, kind: str, known: Known) -> Network:
    """The network in a file, for a model. Raises UserError when it does not fit."""
    return network_from_file(model, path, kind, lambda point, size, shapes: known(point, size, shapes, path))


def does_not_fit(source: Path | None, tensor: str, shape: tuple[int, ...], point: AttachPoint) -> UserError:
    """A tensor of a file that is not as the layer needs it."""
    cause = f"{tensor} of {point.path} is {shape}, which does not fit the model's layer"
    return UserError.of(source, cause, "use a network that was made for this kind of model")


def warn_of_idle_alpha(alpha: float | None, module: str, reason: str) -> None:
    """A warning when --network_alpha is given to a kind that has none."""
    if alpha is not None:
        warn(f"--network_alpha has no effect with {module}: {reason}")


def _tell(skipped: list[AttachPoint], kind: str, dim: int, is_there_any: bool) -> None:
    widths = sorted({point.module.weight.shape[0] for point in skipped})
    where, cause = f"--network_dim {dim}", f"cannot divide {', '.join(map(str, widths))} outputs"
    if not is_there_any:
        raise UserError.of(where, cause, "choose a larger one")
    warn(f"{where} {cause}: {len(skipped)} layers get no module, e.g. {skipped[0].path}")
