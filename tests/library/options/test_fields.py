from dataclasses import dataclass

import pytest

from library.options.fields import below, not_pairs, option, refuse, warn_when
from library.problems import UserError


@dataclass(frozen=True)
class Numbers:
    """Numbers."""

    rank: int | None = option(None, "a rank")
    count: int = option(1, "a count")
    rate: float = option(0.5, "a rate")


def refused(*checks: tuple[object, str, str]) -> list[str]:
    with pytest.raises(UserError) as error:
        refuse(*checks)
    return [str(problem) for problem in error.value.problems]


def test_refuse_raises_every_mistake_at_once_in_the_order_of_the_checks() -> None:
    checks = ((True, "b", "needs --c"), (False, "a", "is fine"), ("text", "<path>", "is needed"))
    assert refused(*checks) == ["--b: needs --c", "<path>: is needed"]
    refuse((False, "a", "is fine"), (None, "b", "too"), (0, "c", "too"), ((), "d", "too"))


def test_warn_when_says_a_line_for_each_and_goes_on(capsys: pytest.CaptureFixture) -> None:
    warn_when((1, "a", "has no effect without --b"), (None, "b", "is fine"), (True, "c", "gives way"))
    assert capsys.readouterr().err == "warning: --a has no effect without --b\nwarning: --c gives way\n"


def test_below_finds_the_numbers_that_were_given_and_are_too_small() -> None:
    refuse(*below(1, Numbers(), "rank", "count"), *below(0.5, Numbers(), "rate"))
    wrong = Numbers(rank=0, count=-1, rate=1e-3)
    assert refused(*below(1, wrong, "count", "rank"), *below(0, wrong, "rate")) == [
        "--count: must be 1 or more",
        "--rank: must be 1 or more",
    ]


def test_not_pairs_finds_words_without_an_equals_sign() -> None:
    assert refused(*not_pairs("network_args", ("conv_dim=4", "loud", "a=b=c", ""))) == [
        "--network_args: expects name=value, got 'loud'",
        "--network_args: expects name=value, got ''",
    ]
