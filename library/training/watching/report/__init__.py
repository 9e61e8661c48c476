"""The report of a run: `<output_name>-report.html` beside the result, refreshed while it trains."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from library import queued
from library.files import whole_file
from library.options.public import changed_options, places_of, public_text
from library.problems import warn, warnings_heard
from library.training.pace.clock import Clock
from library.training.saving.checkpoints import last_name
from library.training.saving.manifest import is_as_saved
from library.training.watching.report.history import VALIDATION, History
from library.training.watching.report.page import About, Now, render
from library.training.watching.trackers import Drawn

if TYPE_CHECKING:
    from library.training.batches import BatchSource
    from library.training.optimization.ledger import Balance
    from library.training.run import TrainingRun
    from library.training.run_plan import RunPlan

SECONDS_BETWEEN = 30.0  # two refreshes, unless there is a validation or a preview


class Report:
    """A tracker that writes a page, in a thread of its own: training does not wait for it.

    page: the file.
    about: what does not change during the run.
    history: the figures and previews so far.
    first_step: steps done at the start.
    warnings: gives the warnings so far.
    clock: knows how long the run's parts took.
    """

    def __init__(
        self,
        page: Path,
        about: About,
        history: History,
        first_step: int,
        warnings: Callable[[], Sequence[str]],
        clock: Clock,
    ) -> None:
        self.page, self.about, self.history, self.warnings = page, about, history, warnings
        self.clock = clock
        self.step, self.is_running = first_step, True
        self.balance: Balance | None = None
        self._written = time.monotonic()
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add figures; see Trackers."""
        self.history.add(step, {name: value for name, value in values.items() if name != "loss/average"})
        self.step = max(self.step, step)
        if VALIDATION in values or time.monotonic() - self._written > SECONDS_BETWEEN:
            self._refresh()

    def show(self, step: int, previews: list[Drawn]) -> None:
        """Add previews; see Trackers."""
        self.history.show(step, [(drawn.number, drawn.prompt, drawn.picture) for drawn in previews])
        self._refresh()

    def conclude(self, balance: Balance) -> None:
        """Add what was trained; see Trackers."""
        self.balance = balance

    def close(self, patience: float) -> None:
        """Write the final page."""
        self.is_running = False
        if self._thread is not None:
            self._thread.join(patience)
        self._publish(self.history)

    def _refresh(self) -> None:
        """Start to write the page, unless a thread is still writing it."""
        if self._error is not None:
            raise self._error
        if self._thread is not None and self._thread.is_alive():
            return
        self._written = time.monotonic()
        self._thread = threading.Thread(target=self._try, args=(self.history.up_to(self.step),), daemon=True)
        self._thread.start()

    def _try(self, history: History) -> None:
        try:
            self._publish(history)
        except Exception as error:  # raised by the next call, where Trackers handles it
            self._error = error

    def _publish(self, history: History) -> None:
        written = time.strftime("%Y-%m-%d %H:%M")
        now = Now(
            step=self.step,
            is_running=self.is_running,
            written=written,
            balance=self.balance,
            warnings=self.warnings(),
            seconds=dict(self.clock.seconds),
        )
        history.save(history_file(self.page))
        with whole_file(self.page, flush=False) as temporary:
            temporary.write_bytes(render(self.about, history, now).encode(errors="replace"))
        if queued.RUN is not None:
            queued.write_json(queued.RUN.folder / queued.SUMMARY, history.summary())


def open_report(run: TrainingRun, batches: BatchSource, plan: RunPlan, clock: Clock) -> Report:
    """The report of a run; a resumed run's begins with the curves of the run before."""
    title, page = last_name(run.saving.output_name), report_page(run)
    about = About(
        title=title,
        script=Path(sys.argv[0]).name,
        model=Path(run.model.pretrained_model_name_or_path or "").name,
        last_step=plan.last_step,
        steps_per_epoch=plan.course.steps_per_epoch,
        options=changed_options(run),
        batches=batches,
    )
    return Report(
        page,
        about,
        _history_before(run, page, plan.first_step),
        plan.first_step,
        _public_warnings(run, batches),
        clock,
    )


def _history_before(run: TrainingRun, page: Path, first_step: int) -> History:
    """The history of the run before a resume: the state's, with what came after the state was saved at its
    step, such as previews, from the file beside the page.
    """
    state = run.saving.resume
    if state is None:
        return History()
    kept, beside = state / "history.json", History.load(history_file(state.parent / page.name))
    if os.path.lexists(kept) and not is_as_saved(kept):
        warn(f"{kept}: is damaged; the report's curves are those of {history_file(page).name}")
        return beside.up_to(first_step)
    return History.load(kept).with_later(beside).up_to(first_step)


def report_page(run: TrainingRun) -> Path:
    """The file of a run's report."""
    return run.saving.output_dir / f"{last_name(run.saving.output_name)}-report.html"


def history_file(page: Path) -> Path:
    """The file beside the page that holds its history, for a resumed run."""
    return page.with_suffix(".json")


def _public_warnings(run: TrainingRun, batches: BatchSource) -> Callable[[], list[str]]:
    """A function that gives the warnings about the data and all others of this command, each once."""
    places = places_of(run, *batches.places(), Path(sys.executable))
    about_data, heard = batches.warnings(), warnings_heard()
    return lambda: list(dict.fromkeys(public_text(line, places) for line in (*about_data, *heard)))
