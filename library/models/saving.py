"""How a result is written: what everything that is saved is told alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from library.options.saving import CheckpointFormat

if TYPE_CHECKING:
    import torch

Form = CheckpointFormat | Literal["pt"]


@dataclass(frozen=True)
class Saving:
    """What is said of a file or folder when it is saved.

    form: ckpt, pt, safetensors, diffusers (a folder of .bin) or diffusers_safetensors.
    dtype: of every floating-point weight; None keeps each one's.
    metadata: texts for .safetensors; other containers have no place for them.
    epoch, step: of the training so far, for .ckpt; added to those of the source.
    """

    form: Form
    dtype: torch.dtype | None = None
    metadata: Mapping[str, str] | None = None
    epoch: int = 0
    step: int = 0

    @property
    def is_folder(self) -> bool:
        """Whether it is a Diffusers folder; else one file."""
        return self.form.startswith("diffusers")
