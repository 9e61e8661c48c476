import errno
import os
import time
from pathlib import Path

import pytest

from library.files import LEFTOVER_AGE, remove_leftovers, whole_file, whole_folder
from library.problems import UserError


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "x.txt"
    with whole_file(target) as temporary:
        temporary.write_text("done")
        assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == ["x.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    target.write_text("old")
    with (
        pytest.raises(UserError, match="could not be written .No space left"),
        whole_file(target) as temporary,
    ):
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_a_folder_takes_the_place_of_the_old_one_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "state"
    target.mkdir()
    (target / "old").touch()
    with whole_folder(target) as temporary:
        (temporary / "new").write_text("x")
        assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "state"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(KeyboardInterrupt), whole_folder(target) as temporary:
        (temporary / "new").touch()
        raise KeyboardInterrupt
    assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_leftovers_of_killed_programs_go_after_a_day(tmp_path: Path) -> None:
    with whole_file(tmp_path / "x.txt") as young, whole_folder(tmp_path / "state") as old:
        young.touch()
        (old / "half").touch()
        (tmp_path / "kept.part").touch()
        for path in (old, tmp_path / "kept.part"):
            os.utime(path, (0, time.time() - LEFTOVER_AGE - 1))
        remove_leftovers(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [young.name, "kept.part"]
        old.mkdir()
