"""Who hears warnings, and for how long."""

from __future__ import annotations

import threading

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
