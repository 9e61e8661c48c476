"""What a run leaves behind: the format of its results and what they say about themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from library.models.saving import Form
from library.models.sources import SourceKind
from library.options.saving import MAX_SHARD_SIZE, CheckpointFormat, CheckpointOptions

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


@dataclass(frozen=True)
class Moment:
    """The point of a run at which something is saved: epochs and steps done, when (unix time) the run began,
    and how many processes it has.
    """

    epoch: int
    step: int
    epochs: int
    last_step: int
    batches_per_epoch: int
    started_at: float
    processes: int


@dataclass(frozen=True)
class Output:
    """form: ckpt, pt, safetensors, diffusers or diffusers_safetensors.

    describe: the file's metadata at a moment.
    hashes: what it says besides of its tensors, as they are in the file; told the metadata too.
    max_shard_size: bytes of the weight files of a folder.
    is_folder: whether the result is a folder of files of that form.
    embeddings: gives the tensors of further files by their names, for a folder beside each result; None:
        there are none.
    """

    form: Form
    tracker_name: str
    describe: Callable[[Moment], dict[str, str]]
    hashes: Callable[[dict[str, Tensor], dict[str, str]], dict[str, str]] | None = None
    max_shard_size: int = MAX_SHARD_SIZE
    is_folder: bool = False
    embeddings: Callable[[], Mapping[str, dict[str, Tensor]]] | None = None

    def beside(self, result: Path) -> list[Path]:
        """What else is written with a result: `x-embeddings` with `x.safetensors`."""
        return [] if self.embeddings is None else [result.with_name(f"{result.stem}-embeddings")]

    @property
    def carries_metadata(self) -> bool:
        """Other containers have no place for it."""
        return self.form == "safetensors"

    @property
    def suffix(self) -> str:
        """Of the result's file; empty for a folder."""
        return "" if self.is_folder or self.form.startswith("diffusers") else f".{self.form}"


def checkpoint_form(options: CheckpointOptions, source_kind: SourceKind) -> CheckpointFormat:
    """The format of a saved model: the one asked for, or the source's own ("ckpt", "safetensors" or
    "diffusers").

    --use_safetensors turns either container into the safetensors one.
    """
    own: CheckpointFormat = "diffusers_safetensors" if source_kind == "diffusers" else source_kind
    form = options.save_model_as or own
    return _AS_SAFETENSORS.get(form, form) if options.use_safetensors else form


_AS_SAFETENSORS: dict[CheckpointFormat, CheckpointFormat] = {
    "ckpt": "safetensors",
    "diffusers": "diffusers_safetensors",
}
