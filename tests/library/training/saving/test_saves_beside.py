"""A network is written beside training; what follows from a save waits until its file is whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from library.files import NotWritten, whole_file
from library.options.saving import SavingOptions
from library.problems import UserError
from library.training.saving.checkpoints import Checkpoints
from library.training.saving.saves import Saves


class Run:
    """Checkpoints of a run of one epoch, whose files are written when `may_write` is set."""

    def __init__(self, folder: Path, **options) -> None:
        self.folder, self.may_write, self.error = folder, threading.Event(), None
        saving = SavingOptions(output_dir=folder, output_name="x", save_every_n_steps=1, **options)
        self.saver = Checkpoints(saving, "", 1, self.begin, self.state, Saves(folder))

    def begin(self, path: Path, epoch: int, step: int):
        content = f"after {step}"

        def write() -> None:
            assert self.may_write.wait(10)
            with whole_file(path) as temporary:
                temporary.write_text(content)
                if self.error is not None:
                    raise self.error

        return write

    def state(self, folder: Path, epoch: int, step: int) -> None:
        there = " ".join(self.names)
        folder.mkdir()
        (folder / "results").write_text(there)

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))

    def written(self) -> None:
        """Let the thread write, and wait for it without asking the saver."""
        self.may_write.set()
        future, _ = self.saver._beside._running
        future.exception(10)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path, save_last_n_steps=1)
    yield made
    made.may_write.set()


def test_training_goes_on_while_a_file_is_written(run: Run) -> None:
    run.saver.after_step(1, 1)
    run.saver.poll()
    assert run.names == []
    run.written()
    run.saver.poll()
    assert run.names == ["x-step00000001"]
    assert [save.name for save in run.saver.saves.entries()] == ["x-step00000001"]


def test_an_old_save_is_removed_only_when_the_new_one_is_whole(run: Run) -> None:
    run.may_write.set()
    for step in (1, 2):
        run.saver.after_step(1, step)
    run.saver.settle()
    run.may_write.clear()
    run.saver.after_step(1, 3)
    run.saver.poll()
    assert run.names == ["x-step00000001", "x-step00000002"]
    run.written()
    run.saver.poll()
    assert run.names == ["x-step00000002", "x-step00000003"]


def test_the_next_save_waits_for_the_one_before(run: Run) -> None:
    run.saver.after_step(1, 1)
    threading.Timer(0.2, run.may_write.set).start()
    run.saver.after_step(1, 2)
    assert "x-step00000001" in run.names
    run.saver.settle()
    assert run.names == ["x-step00000001", "x-step00000002"]


def test_the_end_waits_and_its_own_result_is_there_when_it_returns(run: Run) -> None:
    run.saver.after_step(1, 1)
    threading.Timer(0.2, run.may_write.set).start()
    run.saver.at_end(1, 2)
    assert run.names == ["x", "x-step00000001"]
    assert (run.folder / "x").read_text() == "after 2"


def test_a_state_comes_after_its_result(tmp_path: Path) -> None:
    run = Run(tmp_path, save_state=True)
    threading.Timer(0.2, run.may_write.set).start()
    run.saver.after_step(1, 1)
    assert (tmp_path / "x-step00000001-state" / "results").read_text() == "x-step00000001"


def test_the_state_of_a_stopped_run_comes_after_what_was_being_written(run: Run) -> None:
    run.saver.after_step(1, 1)
    threading.Timer(0.2, run.may_write.set).start()
    folder = run.saver.on_stop(1, 1)
    assert (folder / "results").read_text() == "x-step00000001"


def test_a_file_that_cannot_be_written_is_a_warning_and_costs_no_older_save(
    run: Run, capsys: pytest.CaptureFixture
) -> None:
    run.may_write.set()
    for step in (1, 2):
        run.saver.after_step(1, step)
    run.saver.settle()
    run.error = OSError(28, "No space left on device")
    run.saver.after_step(1, 3)
    run.written()
    run.saver.poll()
    assert run.names == ["x-step00000001", "x-step00000002"]
    assert [path.name for path in run.folder.iterdir() if path.name.startswith(".")] == []
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert "x-step00000003: could not be written (No space left on device)" in line
    assert line.endswith("; training goes on")


def test_weights_that_are_no_numbers_end_the_run_and_replace_nothing(run: Run) -> None:
    (run.folder / "x-step00000001").write_text("good")
    run.error = UserError.of("step 1", "no numbers")
    run.saver.after_step(1, 1)
    run.written()
    with pytest.raises(UserError, match="no numbers"):
        run.saver.poll()
    assert (run.folder / "x-step00000001").read_text() == "good"
    run.saver.settle()  # it is told once


def test_an_error_in_training_waits_for_the_file(run: Run) -> None:
    with pytest.raises(ZeroDivisionError), run.saver.settled_after():
        run.saver.after_step(1, 1)
        threading.Timer(0.2, run.may_write.set).start()
        _ = 1 / 0
    assert run.names == ["x-step00000001"]


def test_an_error_in_training_stays_the_error_when_the_file_fails_too(
    run: Run, capsys: pytest.CaptureFixture
) -> None:
    run.error = UserError.of("step 1", "no numbers")
    run.may_write.set()
    with pytest.raises(ZeroDivisionError), run.saver.settled_after():
        run.saver.after_step(1, 1)
        _ = 1 / 0
    assert "step 1: no numbers" in capsys.readouterr().err


def test_the_last_result_that_cannot_be_written_is_an_error(run: Run) -> None:
    run.error = OSError(28, "No space left on device")
    run.may_write.set()
    with pytest.raises(NotWritten):
        run.saver.at_end(1, 2)


@pytest.mark.parametrize(("is_async", "uploaded"), [(True, []), (False, ["x-step00000001"])])
def test_an_upload_begins_when_the_file_is_whole(run: Run, is_async: bool, uploaded: list[str]) -> None:
    seen: list[str] = []
    options = SimpleNamespace(async_upload=is_async)
    run.saver.uploads = SimpleNamespace(
        options=options,
        add=lambda path, is_state=False: seen.append(path.name if path.exists() else "nothing"),
    )
    threading.Timer(0.3, run.may_write.set).start()
    run.saver.after_step(1, 1)
    assert seen == uploaded
    run.saver.settle()
    assert seen == ["x-step00000001"]
