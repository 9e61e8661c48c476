"""Who hears warnings, and for how long."""

from __future__ import annotations

import errno
import tempfile
import threading
from pathlib import Path

import pytest

from library.problems import (
    UserError,
    hears_warnings,
    run_command,
    warn,
    warn_idle,
    warnings_heard,
    warnings_in_order,
    without_warnings,
)


def test_a_command_hears_its_own_warnings_from_any_thread() -> None:
    heard = []

    def main() -> None:
        lines = warnings_heard()
        warn("one")
        thread = threading.Thread(target=warn, args=("hf_abcdefghijkl",))
        thread.start()
        thread.join()
        heard.append(list(lines))

    run_command(main)
    run_command(main)
    assert heard == [["one", "***"]] * 2
    assert list(warnings_heard()) == []


def test_who_listens_within_hears_alone_and_is_forgotten_also_after_an_error() -> None:
    with hears_warnings() as outer:
        with pytest.raises(ZeroDivisionError), hears_warnings() as inner:
            warn("within")
            raise ZeroDivisionError
        warn("without")
    assert (list(outer), list(inner)) == (["without"], ["within"])
    warn("nobody")
    assert (list(outer), list(inner)) == (["without"], ["within"])


def test_other_processes_than_the_first_say_and_hear_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with hears_warnings() as lines:
        warn("one")
    assert list(lines) == [] and capsys.readouterr().err == ""


def test_settings_without_effect_share_a_line_above_the_others(capsys: pytest.CaptureFixture) -> None:
    with warnings_in_order():
        warn("this matters")
        with warnings_in_order():
            warn_idle("--a", "without --b")
        warn_idle("c.toml: x:", "it is for others")
        warn_idle("c.toml: y:", "it is for others")
        warn_idle("--a", "without --b")
        assert capsys.readouterr().err == ""
    assert capsys.readouterr().err == (
        "warning: 3 settings have no effect here: --a (without --b), c.toml: x, y (it is for others)\n"
        "warning: this matters\n"
    )


def test_warnings_are_printed_when_the_checks_fail_too(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(UserError), warnings_in_order():
        warn_idle("--a", "")
        raise UserError.of("--b", "is wrong")
    assert capsys.readouterr().err == "warning: --a has no effect\n"
    with without_warnings():
        warn("unseen")
    assert capsys.readouterr().err == ""


def test_an_error_that_nobody_expected_is_one_line_and_a_file(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijkl")

    def main() -> None:
        raise ZeroDivisionError("hf_abcdefghijkl\nsecond line")

    with pytest.raises(SystemExit) as end:
        run_command(main)
    assert end.value.code == 70
    (line,) = capsys.readouterr().err.splitlines()
    (file,) = tmp_path.glob("*.log")
    assert line == f"this is a fault of Atelier: ZeroDivisionError: ***; details in {file}"
    text = file.read_text()
    assert "Traceback" in text and "second line" in text and "hf_abc" not in text
    monkeypatch.setenv("ATELIER_DEBUG", "1")
    with pytest.raises(SystemExit):
        run_command(main)
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left", "x.bin"), "the disk is full: x.bin; make room and resume"),
        (MemoryError("2 GB"), "out of memory: 2 GB; --dry_run shows what would take less"),
        (MemoryError(), "out of memory: without a message; --dry_run shows what would take less"),
    ],
)
def test_a_full_disk_or_memory_is_told_as_what_it_is(
    error: Exception, line: str, capsys: pytest.CaptureFixture
) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run_command(main)
    assert end.value.code == 70
    assert capsys.readouterr().err == f"{line}\n"
