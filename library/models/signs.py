"""By what a family of models is recognised, in single files and in Diffusers folders. Imports no torch.

Each family's own signs stand in its folder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from library.models.sources import read_json


class Mark(NamedTuple):
    """What a file is when one of its names begins with (or contains, after a *) this.

    fix: what to do with it; None: say which families there are.
    """

    name: str
    what: str
    fix: str | None = ""

    def is_among(self, names: set[str]) -> bool:
        """Whether a file with these names has it."""
        if self.name[0] == "*":
            return any(self.name[1:] in name for name in names)
        return any(name.startswith(self.name) for name in names)


@dataclass(frozen=True)
class Folder:
    """A Diffusers folder, as far as it tells which family it is of."""

    path: Path

    def has(self, part: str) -> bool:
        return (self.path / part).is_dir()

    def config(self, part: str) -> dict[str, Any]:
        """A part's configuration; {} when there is none."""
        return read_json(self.path / part / "config.json")


@dataclass(frozen=True)
class Signs:
    """What tells a family's files from those of others.

    Families are asked from the last in FAMILIES to the first: a later one may have all that an earlier one
    has, and more.

    denoiser: how its denoiser's names begin in a single file.
    texts: how its text encoders' names begin there; the first one tells the family.
    vae: how its VAE's names begin there.
    first_layer: the name there of the layer that takes the noisy latents.
    parts: the folders of a Diffusers folder, the denoiser's first.
    is_folder: whether a folder that has the denoiser is one of this family.
    others: single files that are akin to this family and cannot be used.
    refusal: what a folder akin to this family is that cannot be used; None: nothing is wrong with it.
    """

    denoiser: str
    texts: tuple[str, ...]
    vae: str
    first_layer: str
    parts: tuple[str, ...]
    is_folder: Callable[[Folder], bool]
    others: tuple[Mark, ...] = ()
    refusal: Callable[[Folder], Mark | None] = lambda folder: None
