"""How network files call a model's layers. Names are made from attach points and looked up, never parsed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from library.models.base import AttachPoint, Model


def module_name(point: AttachPoint, prefix: str = "lora") -> str:
    """The name of a network's module in our files, e.g. `lora_unet_mid_block_attentions_0_proj_in`: prefix,
    part and path, dots as underscores.
    """
    return _name(prefix, point, point.path)


def points_by_name(points: Iterable[AttachPoint], prefix: str = "lora") -> dict[str, AttachPoint]:
    """Each point under every name that a file may have for it."""
    found = {}
    for point in points:
        if point.other_path is not None:
            found[_name(prefix, point, point.other_path)] = point
        found[module_name(point, prefix)] = point
    return found


def targets(
    model: Model, parts: Iterable[str], parents: Iterable[str], prefix: str = "lora"
) -> dict[str, AttachPoint]:
    """The model's attach points inside the given parts and kinds of block, by module name."""
    parts, parents = set(parts), set(parents)
    chosen = (point for point in model.attach_points() if point.part in parts and point.parent in parents)
    return {module_name(point, prefix): point for point in chosen}


def _name(prefix: str, point: AttachPoint, path: str) -> str:
    return f"{prefix}_{point.prefix}_{path}".replace(".", "_")
