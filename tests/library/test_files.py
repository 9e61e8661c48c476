import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from library.files import (
    LEFTOVER_AGE,
    _aside_name,
    check_writable,
    is_name_too_long,
    remove_leftovers,
    restore_folder,
    whole_file,
    whole_folder,
)
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


@pytest.mark.parametrize("write", [whole_file, whole_folder])
@pytest.mark.parametrize("was_there", [False, True])
def test_what_was_there_is_spoken_of_only_if_there_was_something(tmp_path: Path, write, was_there) -> None:
    target = tmp_path / "x"
    if was_there:
        target.mkdir()
    with pytest.raises(UserError) as caught, write(target):
        raise OSError(errno.ENOSPC, "No space left on device")
    kept = "; what was there before is still there" if was_there else ""
    assert str(caught.value) == f"{target}: could not be written (No space left on device); make room{kept}"


def test_what_to_do_instead_of_writing_a_file_is_said(tmp_path: Path) -> None:
    for number, fix in ((errno.ENOSPC, "make room, or go home"), (errno.EIO, "go home")):
        with pytest.raises(UserError) as caught, whole_file(tmp_path / "x", otherwise="go home"):
            raise OSError(number, "no")
        assert str(caught.value) == f"{tmp_path / 'x'}: could not be written (no); {fix}"


@pytest.mark.parametrize("letter", ["x", "ä", "\U0001f600"])
def test_a_name_is_too_long_when_no_file_can_have_it(tmp_path: Path, letter: str) -> None:
    one = len(letter.encode("utf-16-le")) // 2 if os.name == "nt" else len(letter.encode())
    longest, too_long = (tmp_path / (letter * (255 // one + more)) for more in (0, 1))
    assert is_name_too_long(too_long) and not is_name_too_long(longest)
    with pytest.raises(OSError):
        too_long.touch()
    with whole_file(longest) as temporary:
        temporary.touch()


def test_a_folder_that_cannot_be_made_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="x.txt: could not be written"),
        whole_file(tmp_path / "file" / "x.txt"),
    ):
        raise AssertionError("there is nowhere to write to")


@pytest.mark.parametrize("flush", [True, False])
def test_an_interrupted_file_leaves_nothing(tmp_path: Path, flush: bool) -> None:
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "x.txt", flush=flush) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_only_flushed_files_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    monkeypatch.setattr(os, "fsync", waits.append)
    for flush, count in ((False, 0), (True, 1 if os.name == "nt" else 2)):
        with whole_file(tmp_path / "x.txt", flush=flush) as temporary:
            temporary.write_text("done")
        assert len(waits) == count


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


KILLED = """
import os, signal
from pathlib import Path
from library import files
count = 0
def rename(source, target):
    global count
    count += 1
    if count == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    source.rename(target)
files._rename = rename
with files.whole_folder(Path({path!r})) as temporary:
    (temporary / "new").touch()
"""


@pytest.mark.skipif(os.name == "nt", reason="asking whether a process lives would end it")
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("restore", [restore_folder, lambda path: remove_leftovers(path.parent)])
def test_a_folder_is_never_lost_by_a_program_that_is_killed_while_it_is_replaced(
    tmp_path: Path, number: int, restore
) -> None:
    target = tmp_path / "[a] state"
    target.mkdir()
    (target / "old").touch()
    code = KILLED.format(number=number, path=str(target))
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert target.exists() == (number == 1)
    restore(target)
    assert [path.name for path in target.iterdir()] == ["old"]
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["[a] state"]


def test_a_folder_that_steps_aside_right_now_is_left_alone(tmp_path: Path) -> None:
    machine = _aside_name(tmp_path / "x").name.split(".")[-2].split("-")[0]
    living = tmp_path / f".x.{machine}-{os.getppid()}.old"
    elsewhere, mine = tmp_path / ".x.abcdef-1.old", tmp_path / ".y.old"
    for path in (living, elsewhere, mine):
        path.mkdir()
    remove_leftovers(tmp_path)  # what another machine left is taken, as nobody can say that it is in use
    kept = {".y.old", "x"} if os.name == "nt" else {".y.old", "x", living.name}
    assert {path.name for path in tmp_path.iterdir()} == kept
    (tmp_path / ".x.abcdef-2.old").mkdir()
    restore_folder(tmp_path / "x")  # the new one was there already
    assert {path.name for path in tmp_path.iterdir()} == kept


@pytest.mark.skipif(os.name == "nt", reason="asking whether a process lives would end it")
def test_leftovers_of_a_killed_process_go_at_once_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from library.files import whole_file
with whole_file(Path({str(tmp_path / "dead.txt")!r})) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    with whole_file(tmp_path / "living.txt") as living:
        living.write_text("half")
        dead = next(path for path in tmp_path.iterdir() if path != living)
        elsewhere = tmp_path / dead.name.replace(".dead", ".other").replace(
            dead.name.split(".")[-3], "abcdef-1"
        )
        elsewhere.touch()
        remove_leftovers(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([living, elsewhere])


def test_a_folder_that_cannot_be_written_to_is_a_problem_with_the_fix(tmp_path: Path) -> None:
    check_writable(tmp_path, "unused")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="missing: cannot be written to .*; make it"):
        check_writable(tmp_path / "missing", "make it")


def test_old_files_of_others_stay_however_much_their_names_are_like_ours(tmp_path: Path) -> None:
    names = [
        ".my download.zip.part",
        ".part",
        ".photos.2024-12.aabbccdd.part",
        ".x.txt.0123ab-77.aabbccdd.part.part",
        ".x.txt.0123ab-77.aabbccd.part",
        "x.txt.0123ab-77.aabbccdd.part",
    ]
    for name in names:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, time.time() - LEFTOVER_AGE - 1))
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize("name", ["x", ".hidden", "a b.c.part", "ä" * 60, "x" * 40 + ".txt"])
def test_leftovers_of_any_name_are_known_as_ours(tmp_path: Path, name: str) -> None:
    with whole_file(tmp_path / name) as temporary:
        temporary.touch()
        os.utime(temporary, (0, time.time() - LEFTOVER_AGE - 1))
        remove_leftovers(tmp_path)
        assert list(tmp_path.iterdir()) == []
        temporary.touch()


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
