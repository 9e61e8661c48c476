"""Where batches come from: what the loop, the report and a state need of it, whatever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from library.data.batch import Needs
    from library.data.loader import Builder
    from library.models.base import Model
    from library.pages.markup import Html
    from library.training.output import Moment
    from library.training.run import TrainingRun
    from library.training.session import Session


class BatchSource(ABC):
    """A run's batches, as a function of the position in the run.

    Three things are needed: how many batches an epoch has, what builds the batch at a position, and a
    fingerprint. The rest says what there is to say of it in metadata, states, console and report; by default
    that is nothing.
    """

    @abstractmethod
    def batches_per_epoch(self, processes: int) -> int:
        """Global batches per epoch, the same in every epoch."""

    @abstractmethod
    def fingerprint(self, seed: int, processes: int) -> str:
        """Changes when a position would mean another batch than before; a state holds it."""

    @abstractmethod
    def builder(
        self,
        model: Model,
        run: TrainingRun,
        session: Session,
        *,
        total_steps: int,
        needs: Needs,
        fixed_seed: int | None = None,
    ) -> Builder:
        """What builds the batch at a position, in this process or in a loader's.

        total_steps: of the whole run.
        needs: what the task needs beyond what every batch has.
        fixed_seed: for validation: the same pictures, captions and noise in every epoch, drawn with this
        seed. None: the run's own draws.
        """

    @property
    def validation(self) -> BatchSource | None:
        """What is held out of training; None when nothing is."""
        return None

    # Before the first step; a source that caches nothing leaves these as they are.

    def identify(self, model: Model, run: TrainingRun) -> None:  # noqa: B027
        """Remember which weights will fill the caches. Called before they are cast: a cache file names the
        weights as they were read.
        """

    def fill_caches(self, model: Model, run: TrainingRun, session: Session) -> None:  # noqa: B027
        """Compute, or read from disk, everything that the run caches. Parts of the model that are not needed
        any more are offloaded. Raises UserError with everything that cannot be used.
        """

    def largest_batch(self, seed: int, processes: int) -> int:
        """Which batch of the first epoch takes the most memory."""
        return 0

    def could_be_cached(self) -> tuple[bool, bool]:
        """Whether its pictures, and its captions, are the same in every epoch."""
        return False, False

    # What is said of it.

    @property
    def resolution(self) -> tuple[int, int]:
        """(width, height) in pixels that is trained on, for `modelspec.resolution`."""
        raise NotImplementedError

    def summary(self) -> list[str]:
        """What there is to train on, for the console."""
        return []

    def warnings(self) -> list[str]:
        """What the user may not expect, each thing once."""
        return []

    def outline(self, seed: int, processes: int) -> list[str]:
        """What there is to train on and how it divides into batches, for --dry_run."""
        return self.summary()

    def contents(self) -> list[str]:
        """A line for each thing in it: figures of validation can be compared while these are equal."""
        return []

    def settings(self) -> dict[str, Any]:
        """What decides its batches, by option name, as JSON has it; a state holds them."""
        return {}

    def stamps(self, seconds: float) -> dict[str, Any]:
        """What the files it is made from are now, as JSON has it; a state holds them. seconds: how long it
        may take.
        """
        return {}

    def edits(self, stamps: dict[str, Any]) -> list[str]:
        """A line for each kind of thing that was edited since there were these stamps."""
        return []

    def metadata(self, run: TrainingRun, moment: Moment) -> dict[str, Any]:
        """The `ss_*` keys about it in a network's file."""
        return {}

    def places(self) -> set[Path]:
        """Names of folders and files in its messages: the report does not show them whole."""
        return set()

    def report_figures(self) -> list[tuple[str, str]]:
        """(what, number) for the head of the report."""
        return []

    def report_section(self) -> Html | None:
        """The part of the report about it."""
        return None
