"""What validation remembers: the lowest loss, and when it has waited long enough."""

from __future__ import annotations

import math

import pytest

from library.options.validation import ValidationOptions
from library.problems import UserError
from library.training.standing import Standing, standing_at_start


def test_only_a_lower_loss_is_the_best() -> None:
    standing = Standing()
    taken = [
        (standing.take(loss, step), standing.since) for step, loss in enumerate([3.0, 2.0, 2.0, 2.5, 1.0])
    ]
    assert taken == [(True, 0), (True, 0), (False, 1), (False, 2), (True, 0)]
    assert (standing.best, standing.best_step, standing.measured_step) == (1.0, 4, 4)


def test_a_loss_that_is_no_number_is_never_the_best() -> None:
    standing = Standing()
    assert not standing.take(math.nan, 1) and not standing.take(math.inf, 2)
    assert standing.best is None and standing.since == 2 and standing.lowest == "none yet"


def test_patience_counts_validations_since_the_best() -> None:
    standing, options = Standing(), ValidationOptions(early_stopping_patience=2)
    ends = []
    for step, loss in enumerate([2.0, 3.0, 1.0, 1.0, 1.5]):
        standing.take(loss, step)
        ends.append(standing.ends_run(options))
    assert ends == [False, False, False, False, True]
    assert not standing.ends_run(ValidationOptions())


def test_a_state_that_early_stopping_ended_is_not_gone_on_from() -> None:
    saved = Standing(best=1.0, since=2).as_dict()
    with pytest.raises(UserError, match="--early_stopping_patience: the state already has 2 validations"):
        standing_at_start(saved, None, ValidationOptions(early_stopping_patience=2), 0)
    assert standing_at_start(saved, None, ValidationOptions(early_stopping_patience=3), 0).since == 2


def test_figures_of_other_pictures_are_forgotten(capsys: pytest.CaptureFixture) -> None:
    saved = Standing(pictures="of others", best=1.0, best_step=7).as_dict()
    assert standing_at_start(saved, None, ValidationOptions(), 0) == Standing()
    assert "the lowest loss, 1.0000 of step 7, is forgotten" in capsys.readouterr().err
