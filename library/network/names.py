"""How network files call a model's layers. Names are made from attach points and looked up, never parsed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from library.models.base import AttachPoint, Model


def module_name(point: AttachPoint, prefix: str = "lora", *, is_original: bool = False) -> str:
    """The name of a network's module in our files, e.g. `lora_unet_mid_block_attentions_0_proj_in`: prefix,
    part and path, dots as underscores.

    is_original: with the path in original files, where it has one.
    """
    path = (point.original_path if is_original else None) or point.path
    return f"{prefix}_{point.prefix}_{path}".replace(".", "_")


def points_by_name(points: Iterable[AttachPoint], prefix: str = "lora") -> dict[str, AttachPoint]:
    """Each point under every name that a file may have for it. An only text encoder may be numbered."""
    points = list(points)
    found = {}
    encoders = {point.text_encoder for point in points}
    for point in points:
        is_only = point.text_encoder == 0 and 1 not in encoders
        for part in (point.prefix, "te1") if is_only else (point.prefix,):
            for path in filter(None, (point.other_path, point.path)):
                found[f"{prefix}_{part}_{path}".replace(".", "_")] = point
    return found


def targets(
    model: Model,
    parts: Iterable[str],
    parents: Iterable[str],
    prefix: str = "lora",
    *,
    is_original: bool = False,
) -> dict[str, AttachPoint]:
    """The model's attach points inside the given parts and kinds of block, by module name."""
    parts, parents = set(parts), set(parents)
    chosen = (point for point in model.attach_points() if point.part in parts and point.parent in parents)
    return {module_name(point, prefix, is_original=is_original): point for point in chosen}
