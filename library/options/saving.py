"""Where, when and how results are saved, and with which metadata."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from library.options.fields import Check, below, option, refuse, warn_when
from library.paths import name_fault

CheckpointFormat = Literal["ckpt", "safetensors", "diffusers", "diffusers_safetensors"]
Precision = Literal["float", "fp16", "bf16"]

# By a file's suffix; a name with none of these is a Diffusers folder.
FORMATS: dict[str, CheckpointFormat] = {".safetensors": "safetensors", ".ckpt": "ckpt"}


def format_of(path: Path) -> CheckpointFormat | None:
    """The format of a file by its suffix, however that is written; None for the name of a folder."""
    return FORMATS.get(path.suffix.lower())


MAX_SHARD_SIZE = 10_000_000_000  # bytes; diffusers' own
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "B": 1}


def read_size(value: object) -> int:
    """Bytes from a number, or from one with a unit as diffusers has them: 10GB, 500 MB, 2GiB. Raises
    ValueError for anything else.
    """
    found = re.fullmatch(r"\s*(\d{1,9}(?:\.\d+)?|\d{1,15})\s*([A-Za-z]*)\s*", str(value))
    if isinstance(value, bool) or found is None or found[2].upper() not in _UNITS:
        raise ValueError(f"expects a size such as 10GB or 500MB, got {value!r}")
    size = int(float(found[1]) * _UNITS[found[2].upper()])
    if size < 1:
        raise ValueError("must be above 0")
    return size


@dataclass(frozen=True)
class SavingOptions:
    """Saving and resuming."""

    output_dir: Path = option(None, "folder for everything the run writes", metavar="DIR")
    output_name: str | None = option(
        None, "name of the files, without suffix (default: last, epoch-..., at-step...)", metavar="NAME"
    )
    save_precision: Precision | None = option(None, "precision of the saved weights (default: as trained)")
    save_every_n_epochs: int | None = option(
        None, "save after every n-th epoch", metavar="N", zero_unset=True
    )
    save_n_epoch_ratio: int | None = option(
        None, "save about n times over the run's epochs", metavar="N", zero_unset=True
    )
    save_every_n_steps: int | None = option(None, "save after every n-th step", metavar="N", zero_unset=True)
    save_last_n_epochs: int | None = option(
        None, "keep the last n epoch saves only", metavar="N", zero_unset=True
    )
    save_last_n_steps: int | None = option(
        None, "keep the step saves of the last n steps only", metavar="N", zero_unset=True
    )
    save_last_n_epochs_state: int | None = option(
        None, "the same for states (default: as --save_last_n_epochs)", metavar="N", zero_unset=True
    )
    save_last_n_steps_state: int | None = option(
        None, "the same for states (default: as --save_last_n_steps)", metavar="N", zero_unset=True
    )
    save_state: bool = option(
        False, "save the training state with each save, and at the end, to go on from with --resume"
    )
    save_state_on_train_end: bool = option(False, "save the training state at the end only")
    resume: Path | None = option(
        None, "go on from this state folder exactly where it was saved", metavar="DIR"
    )
    skip_state_check: bool = option(
        False, "resume without comparing the state's files with the hashes in its manifest"
    )

    def __post_init__(self) -> None:
        fault = None if self.output_name is None else name_fault(self.output_name)
        refuse(
            (self.output_dir is None, "output_dir", "is needed: the folder for the results"),
            (fault is not None, "output_name", fault or ""),
            *below(1, self, "save_every_n_epochs", "save_n_epoch_ratio", "save_every_n_steps"),
            *below(1, self, "save_last_n_epochs", "save_last_n_steps"),
            *below(1, self, "save_last_n_epochs_state", "save_last_n_steps_state"),
        )
        warn_when(
            (
                self.save_every_n_epochs and self.save_n_epoch_ratio,
                "save_every_n_epochs",
                "has no effect with --save_n_epoch_ratio",
            ),
            _without(self, "save_last_n_epochs", "save_every_n_epochs", "save_n_epoch_ratio"),
            _without(self, "save_last_n_steps", "save_every_n_steps"),
            _without(self, "save_last_n_epochs_state", "save_state"),
            _without(self, "save_last_n_steps_state", "save_state"),
            (
                self.skip_state_check and self.resume is None,
                "skip_state_check",
                "has no effect without --resume",
            ),
        )


def _without(section: object, name: str, *needed: str) -> Check:
    """The check that an option is not given without one of those it needs to have an effect."""
    is_given = getattr(section, name) is not None
    can_act = any(getattr(section, other) for other in needed)
    return (is_given and not can_act, name, f"has no effect without --{' or --'.join(needed)}")


@dataclass(frozen=True)
class CheckpointOptions:
    """Saved model."""

    save_model_as: CheckpointFormat | None = option(
        None, "format of the saved model (default: as the source)"
    )
    use_safetensors: bool = option(False, "save .safetensors weights, whatever the source was")
    keep_other_tensors: bool = option(
        False, "save the source file's other tensors too (model_ema.*, noise tables), as they are there"
    )
    max_shard_size: int = option(
        MAX_SHARD_SIZE,
        "a Diffusers folder: write parts that are larger than this in several files (default 10GB)",
        convert=read_size,
        metavar="SIZE",
    )

    def __post_init__(self) -> None:
        refuse(
            (
                self.use_safetensors and self.save_model_as in ("ckpt", "diffusers"),
                "use_safetensors",
                f"contradicts --save_model_as {self.save_model_as}",
            ),
            (
                self.keep_other_tensors and (self.save_model_as or "").startswith("diffusers"),
                "keep_other_tensors",
                f"contradicts --save_model_as {self.save_model_as}: a folder has no place for them",
            ),
        )
        warn_when(
            (
                self.max_shard_size != MAX_SHARD_SIZE and self.save_model_as in ("ckpt", "safetensors"),
                "max_shard_size",
                f"has no effect with --save_model_as {self.save_model_as}",
            )
        )


@dataclass(frozen=True)
class MetadataOptions:
    """What the file says about itself."""

    metadata_title: str | None = option(None, "title (default: the output name)")
    metadata_author: str | None = option(None, "author")
    metadata_description: str | None = option(None, "description")
    metadata_license: str | None = option(None, "license")
    metadata_tags: str | None = option(None, "tags, separated by commas")
    metadata_usage_hint: str | None = option(None, "how to use the model")
    metadata_thumbnail: str | None = option(None, "picture: a file, or a data: or https: URL")
    metadata_merged_from: str | None = option(None, "models this one was merged from")
    metadata_trigger_phrase: str | None = option(None, "words that call what was learned")
    metadata_preprocessor: str | None = option(None, "preprocessor the model expects")
    metadata_is_negative_embedding: str | None = option(None, "whether this is a negative embedding")
