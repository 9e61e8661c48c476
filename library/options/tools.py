"""Options of the tools that convert a model, make a tiny one, or write the page about a dataset."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from library.options.fields import below, option, refuse, warn_when
from library.options.model import TokenLength, read_token_length
from library.options.saving import MAX_SHARD_SIZE, CheckpointFormat, format_of, read_size

SavePrecision = Literal["no", "fp16", "bf16", "float"]

_OTHER_FILES = (".pt", ".pth", ".bin")


@dataclass(frozen=True)
class TinyModelOptions:
    """Tiny model."""

    path: Path = option(
        None, "file (.safetensors, .ckpt) or folder to write", positional=True, metavar="model_to_save"
    )
    seed: int = option(0, "seed of the random weights", metavar="N")
    family: str = option("sd1", "which layout: sd1, sd2 or sdxl", metavar="NAME")
    v_parameterization: bool = option(False, "a model that predicts v")

    def __post_init__(self) -> None:
        refuse(
            (self.path is None, "<model_to_save>", "is needed: the file or folder to write"),
            (_is_other_file(self.path), "<model_to_save>", "a file must end in .safetensors or .ckpt"),
        )

    @property
    def format(self) -> CheckpointFormat:
        """By the path's suffix; without one it is a Diffusers folder."""
        return format_of(self.path) or "diffusers_safetensors"


def read_metadata(value: object) -> dict[str, str]:
    """Metadata from JSON or a Python dictionary, all values as text. Raises ValueError for anything else."""
    content = _parse(value) if isinstance(value, str) else value
    if not isinstance(content, dict):
        raise ValueError('expects a dictionary such as {"modelspec.title": "my model"}')
    return {str(name): str(text) for name, text in content.items()}


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None


@dataclass(frozen=True)
class ConvertOptions:
    """Conversion."""

    model_to_load: str = option(
        None, "model to read: a .safetensors or .ckpt file, a Diffusers folder or a hub id", positional=True
    )
    model_to_save: Path = option(
        None,
        "where to write: a name ending in .safetensors or .ckpt is a file, any other a Diffusers folder",
        positional=True,
    )
    v1: bool = option(False, "the model is SD 1.x; checked against the file, which decides")
    v2: bool = option(False, "the model is SD 2.x; checked against the file, which decides")
    fp16: bool = option(False, "save as float16")
    bf16: bool = option(False, "save as bfloat16")
    float: bool = option(False, "save as float32")
    save_precision_as: SavePrecision = option("no", "the same by name; no keeps every weight's precision")
    epoch: int = option(0, "epoch to note in a .ckpt, added to that of the source", metavar="N")
    global_step: int = option(0, "step to note in a .ckpt, added to that of the source", metavar="N")
    metadata: dict[str, str] | None = option(
        None, "metadata for a .safetensors: a JSON object", convert=read_metadata, metavar="JSON"
    )
    variant: str | None = option(
        None, "which weights of a Diffusers folder to read, e.g. fp16", metavar="NAME"
    )
    unet_use_linear_projection: bool = option(
        False, "SD 2.x: write the projections around the U-Net's transformers as matrices"
    )
    use_safetensors: bool | None = option(
        None, "write a folder's weights as .safetensors, as is the default; =false writes .bin"
    )
    max_shard_size: int = option(
        MAX_SHARD_SIZE,
        "to a folder: write parts that are larger than this in several files (default 10GB)",
        convert=read_size,
        metavar="SIZE",
    )
    keep_other_tensors: bool = option(
        False, "from file to file: write the other tensors too (model_ema.*, noise tables), as they are"
    )
    reference_model: str | None = option(
        None,
        "accepted and not needed: scheduler and tokenizer of a folder come with Atelier",
        metavar="MODEL",
    )

    def __post_init__(self) -> None:
        precisions = self.fp16 + self.bf16 + self.float + (self.save_precision_as != "no")
        refuse(
            (self.model_to_load is None, "<model_to_load>", "is needed: the model to read"),
            (self.model_to_save is None, "<model_to_save>", "is needed: the file or folder to write"),
            (
                _is_other_file(self.model_to_save),
                "<model_to_save>",
                "a file must end in .safetensors or .ckpt",
            ),
            (self.v1 and self.v2, "v1", "choose --v1 or --v2"),
            (precisions > 1, "fp16", "choose one of --fp16, --bf16, --float, --save_precision_as"),
        )
        is_ckpt, is_folder = self.format == "ckpt", self.format.startswith("diffusers")
        warn_when(
            (self.epoch != 0 and not is_ckpt, "epoch", "has no effect: only a .ckpt notes it"),
            (self.global_step != 0 and not is_ckpt, "global_step", "has no effect: only a .ckpt notes it"),
            (
                self.metadata is not None and self.format != "safetensors",
                "metadata",
                "has no effect: only a .safetensors file has any",
            ),
            (
                self.use_safetensors is not None and not is_folder,
                "use_safetensors",
                "has no effect: the suffix decides",
            ),
            (
                self.max_shard_size != MAX_SHARD_SIZE and not is_folder,
                "max_shard_size",
                "has no effect: only a folder has several files",
            ),
            (
                self.keep_other_tensors and is_folder,
                "keep_other_tensors",
                "has no effect: a folder has no place for them",
            ),
            (
                self.reference_model is not None,
                "reference_model",
                "is not needed: scheduler and tokenizer come with Atelier",
            ),
        )

    @property
    def format(self) -> CheckpointFormat:
        """By the path's suffix; without one it is a Diffusers folder."""
        folder: CheckpointFormat = "diffusers" if self.use_safetensors is False else "diffusers_safetensors"
        return format_of(self.model_to_save) or folder

    @property
    def precision(self) -> str | None:
        """float, fp16 or bf16; None keeps the precision of each weight."""
        switches = {"fp16": self.fp16, "bf16": self.bf16, "float": self.float}
        named = None if self.save_precision_as == "no" else self.save_precision_as
        return next((name for name, on in switches.items() if on), named)


@dataclass(frozen=True)
class CheckDatasetOptions:
    """Report."""

    report: Path = option(Path("dataset.html"), "page to write", metavar="FILE")
    max_token_length: TokenLength = option(
        75, "longest caption in tokens; longer ones are cut", convert=read_token_length, zero_unset=True
    )
    sample_seed: int = option(0, "seed of the crops and captions that are shown", metavar="N")
    max_train_steps: int = option(
        1600, "steps of the run, of which --token_warmup_step may be a share", metavar="N", zero_unset=True
    )

    def __post_init__(self) -> None:
        refuse(
            (self.report.suffix.lower() not in (".html", ".htm"), "report", "must end in .html"),
            *below(1, self, "max_train_steps"),
        )


def _is_other_file(path: Path | None) -> bool:
    """Whether the suffix is that of a file we do not write; other suffixes are part of a folder's name."""
    return path is not None and path.suffix.lower() in _OTHER_FILES
