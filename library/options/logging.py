"""The logs and the report that a run writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from library.options.fields import option, refuse, warn_when
from library.paths import name_fault
from library.secrets import Secret


@dataclass(frozen=True)
class LoggingOptions:
    """Logs."""

    logging_dir: Path | None = option(None, "write logs below this folder", metavar="DIR")
    log_with: Literal["tensorboard", "wandb", "all"] | None = option(
        None, "which trackers (default: tensorboard when --logging_dir is given)"
    )
    log_prefix: str | None = option(None, "put before the date in the log folder's name")
    log_tracker_name: str | None = option(
        None, "name of the folder inside the log folder, and of the project on wandb", metavar="NAME"
    )
    log_tracker_config: Path | None = option(
        None, "TOML file with the tables [tensorboard] and [wandb]: further settings of each", metavar="FILE"
    )
    log_config: bool = option(False, "log the run's options too, without tokens and folders")
    wandb_run_name: str | None = option(None, "name of the run on wandb", metavar="NAME")
    wandb_api_key: Secret | None = option(
        None,
        "key for wandb; better in the environment (WANDB_API_KEY), or log in: wandb login",
        metavar="KEY",
    )

    no_report: bool = option(False, "write no <output_name>-report.html, the page about the run")

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names of the trackers in use."""
        if self.log_with == "all":
            return ("tensorboard", "wandb")
        if self.log_with is not None:
            return (self.log_with,)
        return () if self.logging_dir is None else ("tensorboard",)

    def __post_init__(self) -> None:
        names = {"log_prefix": self.log_prefix, "log_tracker_name": self.log_tracker_name}
        refuse(
            (
                "tensorboard" in self.trackers and self.logging_dir is None,
                "log_with",
                f"{self.log_with} needs --logging_dir",
            ),
            *(
                (given and name_fault(given), name, "must be a plain name: it names a folder")
                for name, given in names.items()
            ),
        )
        for_any = {
            "log_tracker_name": self.log_tracker_name,
            "log_tracker_config": self.log_tracker_config,
            "log_config": self.log_config,
        }
        for_wandb = {"wandb_run_name": self.wandb_run_name, "wandb_api_key": self.wandb_api_key}
        no_tracker = "has no effect without --logging_dir or --log_with wandb"
        no_wandb = "has no effect without --log_with wandb"
        warn_when(
            (
                self.log_prefix is not None and "tensorboard" not in self.trackers,
                "log_prefix",
                "names TensorBoard's folder only",
            ),
            *((value and not self.trackers, name, no_tracker) for name, value in for_any.items()),
            *(
                (value is not None and "wandb" not in self.trackers, name, no_wandb)
                for name, value in for_wandb.items()
            ),
        )
