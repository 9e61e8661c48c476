"""Which state a run of a queue goes on from, and which are removed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from queue_stubs import save_state

from library.queue.folder import Added
from library.queue.states import newest_state, only_newest_state, remove_unwanted
from library.training.position import Save


def make(folder: Path) -> Added:
    """A run with four states, one of which was due, and another run's state of a name like its own."""
    due = Save("x-step00000004-state", "step", 4, is_state=True, content="")
    save_state(folder / "x-step00000003-state", "key", 3)
    save_state(folder / due.name, "key", 4, saves=[due])
    save_state(folder / "x-step00000007-state", "key", 7, saves=[due])
    save_state(folder / "x-step00000009-state", "another key", 9)
    save_state(folder / "x-state", "key", 10, saves=[due])
    return Added("x", "key", "train_db.py", None, 1, str(folder), str(folder))


def left(folder: Path) -> list[str]:
    """Steps of the states that are there."""
    return [path.name for path in sorted(folder.glob("*-state"))]


def test_the_newest_state_of_the_run_that_is_as_it_was_saved(tmp_path: Path) -> None:
    added = make(tmp_path)
    assert newest_state(added) == (tmp_path / "x-state", 10)
    (tmp_path / "x-state" / "model.safetensors").write_text("damaged")
    (tmp_path / "x-step00000007-state").rename(tmp_path / ".x-step00000007-state.012abc-1.old")
    assert newest_state(added) == (tmp_path / "x-step00000007-state", 7)  # a kill came between two renames
    assert newest_state(replace(added, key="new")) is None


def test_only_states_that_were_asked_for_are_left(tmp_path: Path) -> None:
    for name, added, kept in (
        ("none", make(tmp_path / "none"), []),
        ("last", replace(make(tmp_path / "last"), keeps_last_state=True), ["x-state"]),
        ("all", replace(make(tmp_path / "all"), keeps_states=True), ["x-state", "x-step00000004-state"]),
    ):
        remove_unwanted(added)
        assert left(tmp_path / name) == [*kept, "x-step00000009-state"]
    assert only_newest_state(make(tmp_path / "more")) == (tmp_path / "more" / "x-state", 10)
    assert left(tmp_path / "more") == ["x-state", "x-step00000009-state"]
