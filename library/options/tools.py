"""Options of the tools."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from library.options.fields import option, require


@dataclass(frozen=True)
class TinyModelOptions:
    """Tiny model."""

    path: Path | None = option(
        None, "file (.safetensors, .ckpt) or folder to write", positional=True, metavar="model_to_save"
    )
    seed: int = option(0, "seed of the random weights", metavar="N")
    v_parameterization: bool = option(False, "a model that predicts v")

    def __post_init__(self) -> None:
        require((self.path is not None, "model_to_save", "is needed: the file or folder to write"))
