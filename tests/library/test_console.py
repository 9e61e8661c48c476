import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from library import console
from library.options.console import ConsoleOptions
from library.options.fields import option, warn_when
from library.options.parser import parse
from library.problems import UserError, run_command, warn


@dataclass(frozen=True)
class Section:
    """A section that warns."""

    thing: bool = option(False, "a thing")

    def __post_init__(self) -> None:
        warn_when((self.thing, "thing", "has no effect"))


@dataclass(frozen=True)
class Run:
    section: Section
    console: ConsoleOptions


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    console.set_up()


def speak() -> None:
    console.debug("a fact")
    console.say("a line")
    warn("a warning")
    for _ in console.progress_bar(range(3), desc="bar"):
        pass
    with pytest.raises(SystemExit):
        run_command(fail)


def fail() -> None:
    raise UserError.of("x.png", "is broken", "get it again")


PROBLEMS = "1 problem found:\n  x.png: is broken; get it again\n"


@pytest.mark.parametrize(
    ("level", "out", "err"),
    [
        ("DEBUG", "a fact\na line\n", "warning: --thing has no effect\nwarning: a warning\n"),
        ("INFO", "a line\n", "warning: --thing has no effect\nwarning: a warning\n"),
        ("WARNING", "", "warning: --thing has no effect\nwarning: a warning\n"),
        ("ERROR", "", ""),
        ("CRITICAL", "", ""),
    ],
)
def test_what_is_less_grave_than_the_level_is_not_said(
    level: str, out: str, err: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parse(Run, argv=["--thing", "--console_log_level", level])
    speak()
    said = capsys.readouterr()
    bars = [line for line in said.err.splitlines() if "bar" in line]
    assert said.out == out
    assert bool(bars) == (level in ("DEBUG", "INFO"))
    assert (
        "".join(f"{line}\n" for line in said.err.splitlines() if "bar" not in line and line) == err + PROBLEMS
    )


def test_lines_go_to_a_file_with_the_time_and_problems_to_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "logs" / "run.log"
    parse(Run, argv=["--thing", "--console_log_file", str(path)])
    speak()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith(PROBLEMS)
    assert "warning" not in said.err
    assert "bar" in said.err  # bars are for the console
    lines = [line.split(" ", 2) for line in path.read_text().splitlines()]
    assert [words[2] for words in lines] == [
        *("WARNING warning: --thing has no effect", "INFO a line", "WARNING warning: a warning"),
        *("CRITICAL 1 problem found:", "CRITICAL   x.png: is broken; get it again"),
    ]
    parse(Run, argv=["--console_log_file", str(path)])
    console.say("another run")
    assert path.read_text().endswith("another run\n")
    assert len(path.read_text().splitlines()) == 6  # what was there stays


def test_a_log_file_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written to .*; choose another file"):
        parse(Run, argv=["--console_log_file", str(tmp_path)])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_log_without_room_goes_on_on_the_console(capsys: pytest.CaptureFixture[str]) -> None:
    parse(Run, argv=["--console_log_file", "/dev/full"])
    console.say("one")
    console.warn("two")
    console.fail("three")
    said = capsys.readouterr()
    lost = "/dev/full: cannot be written to (No space left on device); lines go to the console from here on"
    assert said.out == "one\n"
    assert said.err == f"warning: {lost}\nwarning: two\nthree\n"


def test_simple_bars_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    parse(Run, argv=["--console_log_simple"])
    for _ in console.progress_bar(range(3), desc="bar"):
        pass
    text = capsys.readouterr().err
    assert "\r" not in text
    assert text.splitlines()[-1].startswith("bar: 100%|####")


def test_where_nothing_can_be_redrawn_bars_are_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in console.progress_bar(range(3), desc="bar"):
        for _ in console.progress_bar(range(2), desc="inner", leave=False):
            pass
    text = capsys.readouterr().err
    assert "\r" not in text and "\x1b" not in text
    assert [line.split(":")[0] for line in text.splitlines()].count("inner") >= 3


def test_long_work_says_what_it_is_and_short_work_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with console.activity("saving a.ckpt"):
        pass
    monkeypatch.setattr(console, "_SECONDS_IN_SILENCE", 0.05)
    with console.activity("loading b.ckpt"):
        time.sleep(0.5)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with console.activity("loading b.ckpt"):
        time.sleep(0.3)
    assert capsys.readouterr() == ("", "loading b.ckpt ...\n")


def test_lines_stand_above_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with console.progress_bar(total=2, desc="bar", mininterval=0, ncols=40) as bar:
        bar.update()
        console.warn("one")
        bar.update()
    redrawn = capsys.readouterr().err.split("\r")
    at = next(i for i, text in enumerate(redrawn) if "warning: one\n" in text)
    assert redrawn[at].startswith("warning: one\n") and redrawn[at - 1].strip() == ""
    assert "bar:  50%" in redrawn[at + 1]


def test_warnings_of_threads_and_libraries_stand_above_all_bars(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A terminal of 40 columns is played: the cursor goes to where the bars put it, and text overwrites."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)

    def work() -> None:
        with (
            console.progress_bar(total=2, desc="steps", mininterval=0, ncols=40) as steps,
            console.progress_bar(total=2, desc="images", mininterval=0, ncols=40) as images,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("always")
            for number in (1, 2):
                steps.update()
                images.update()
                thread = threading.Thread(target=warn, args=[f"thread {number}"])
                thread.start()
                thread.join()
                warnings.warn_explicit(f"library {number}", UserWarning, "lib.py", number)

    run_command(work)
    screen = played(capsys.readouterr().err)
    assert screen[:4] == [
        "warning: thread 1",
        "lib.py:1: UserWarning: library 1",
        "warning: thread 2",
        "lib.py:2: UserWarning: library 2",
    ]
    assert sorted(line.partition(":")[0] for line in screen[4:]) == ["images", "steps"]


def played(text: str) -> list[str]:
    """What a terminal shows after these characters."""
    screen: list[list[str]] = [[]]
    row, column = 0, 0
    for sign in re.findall(r"\x1b\[A|[\s\S]", text):
        if sign == "\n":
            row, column = row + 1, 0
            screen += [[]] * (row >= len(screen))
        elif sign == "\r":
            column = 0
        elif sign == "\x1b[A":
            row -= 1
        else:
            line = screen[row] + [" "] * (column - len(screen[row]))
            screen[row] = [*line[:column], sign, *line[column + 1 :]]
            column += 1
    return [shown for line in screen if (shown := "".join(line).rstrip())]


def test_a_command_whose_output_nobody_reads_does_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, written = os.pipe()
    os.close(read)
    done = []

    def work() -> None:
        for number in console.progress_bar(range(3), mininterval=0):
            console.say(f"{number}" * 100_000)
            console.warn("a warning")
            done.append(number)

    with os.fdopen(written, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        monkeypatch.setattr("sys.stderr", stream)
        run_command(work)

    assert done == [0, 1, 2]


def test_control_characters_of_names_are_shown_escaped(capsys: pytest.CaptureFixture) -> None:
    console.set_up()
    console.warn("a\x1b[31mred\x07\r\u202eb\udce9.png\tc\nd")
    assert capsys.readouterr().err == ("warning: a\\x1b[31mred\\x07\\r\\u202eb\\udce9.png\tc\nd\n")
