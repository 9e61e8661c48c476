"""TensorBoard: a run is the folder `<logging_dir>/<log_prefix><date>/<name>`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.options.logging import LoggingOptions
from library.training.watching.trackers import Drawn

if TYPE_CHECKING:
    from library.training.optimization.ledger import Balance


def run_folder(options: LoggingOptions, name: str, before: str | None) -> Path:
    """The folder for the log of this run.

    name: of the folder inside the date's folder.
    before: the date's folder of the run that is resumed; it is used again if the log is there and
        --log_prefix does not ask for another.
    """
    assert options.logging_dir is not None
    name = options.log_tracker_name or name
    if (
        before
        and before.startswith(options.log_prefix or "")
        and (options.logging_dir / before / name).is_dir()
    ):
        return options.logging_dir / before / name
    date = (options.log_prefix or "") + time.strftime("%Y%m%d%H%M%S")
    return options.logging_dir / date / name


class TensorBoardTracker:
    """Writes event files.

    first_step: steps done at the start. A resumed run repeats the later ones, so TensorBoard hides those that
        the log already has.
    settings: further arguments of SummaryWriter.
    config: options to list among the hyperparameters.
    """

    def __init__(
        self, folder: Path, first_step: int, *, settings: dict[str, Any], config: Mapping[str, Any]
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        purge = {"purge_step": first_step + 1} if first_step else {}
        self._writer = SummaryWriter(str(folder), **(purge | settings))
        if config:
            file = self._writer.file_writer
            assert file is not None  # until it is closed
            for summary in hparams(dict(config), {"loss/average": 0.0}):
                file.add_summary(summary)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def show(self, step: int, previews: list[Drawn]) -> None:
        import numpy as np

        for preview in previews:
            pixels = np.asarray(preview.picture.convert("RGB"))
            self._writer.add_image(f"sample_{preview.number}", pixels, step, dataformats="HWC")

    def conclude(self, balance: Balance) -> None:
        """Nothing: the ledger is on the console and in the report."""

    def close(self, patience: float) -> None:
        self._writer.close()
