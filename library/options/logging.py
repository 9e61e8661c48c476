"""What a run writes down while it goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from library.options.fields import option, require, warn_unless
from library.options.saving import name_fault


@dataclass(frozen=True)
class LoggingOptions:
    """Logs."""

    logging_dir: Path | None = option(None, "write TensorBoard logs below this folder", metavar="DIR")
    log_with: Literal["tensorboard"] | None = option(
        None, "which tracker (default: tensorboard when --logging_dir is given)"
    )
    log_prefix: str | None = option(None, "put before the date in the log folder's name")
    log_tracker_name: str | None = option(None, "name of the run inside the log folder")

    def __post_init__(self) -> None:
        require(
            (self.logging_dir is not None or self.log_with is None, "log_with", "needs --logging_dir"),
            *(
                (not given or name_fault(given) is None, name, "must be a plain name: it names a folder")
                for name, given in (
                    ("log_prefix", self.log_prefix),
                    ("log_tracker_name", self.log_tracker_name),
                )
            ),
        )
        warn_unless(
            *(
                (
                    self.logging_dir is not None or getattr(self, name) is None,
                    name,
                    "has no effect without --logging_dir",
                )
                for name in ("log_prefix", "log_tracker_name")
            )
        )
