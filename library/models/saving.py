"""How a result is saved: what is the same for models, networks and tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from library.options.saving import MAX_SHARD_SIZE, CheckpointFormat
from library.problems import UserError

if TYPE_CHECKING:
    import torch

Form = CheckpointFormat | Literal["pt"]


@dataclass(frozen=True)
class Saving:
    """How a file or folder is saved.

    form: ckpt, pt, safetensors, diffusers (a folder of .bin) or diffusers_safetensors.
    dtype: of every floating-point weight; None keeps each one's.
    metadata: for .safetensors; other formats have none.
    epoch, step: of the training so far, for .ckpt; added to those of the source.
    max_shard_size: bytes of a folder's weight files; a larger part is written in several.
    """

    form: Form
    dtype: torch.dtype | None = None
    metadata: Mapping[str, str] | None = None
    epoch: int = 0
    step: int = 0
    max_shard_size: int = MAX_SHARD_SIZE

    @property
    def is_folder(self) -> bool:
        """Whether it is a Diffusers folder; else one file."""
        return self.form.startswith("diffusers")


def check_target(path: Path, form: CheckpointFormat) -> None:
    """Raises UserError when saving a model here would replace something that is no model."""
    if not path.exists():
        return
    is_folder = form in ("diffusers", "diffusers_safetensors")
    if path.is_dir() != is_folder:
        raise UserError.of(path, f"is a {'file' if is_folder else 'folder'}", "choose another name")
    if is_folder and any(path.iterdir()) and not (path / "model_index.json").is_file():
        cause = "this folder holds other things than a Diffusers model, and would be replaced"
        raise UserError.of(path, cause, "choose another name")
