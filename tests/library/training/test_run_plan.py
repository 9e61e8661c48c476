import math
from types import SimpleNamespace
from typing import NoReturn

import pytest

from library.options.training import TrainingOptions
from library.problems import UserError
from library.training.batches import BatchSource
from library.training.position import StateInfo
from library.training.run_plan import RunPlan, plan_run


class Data(BatchSource):
    """Seven samples at batch size 2: four batches an epoch."""

    def __init__(self, names: str = "abcdefg") -> None:
        self.names = names

    def batches_per_epoch(self, processes: int) -> int:
        return math.ceil(len(self.names) / 2 / processes)

    def fingerprint(self, seed: int, processes: int) -> str:
        return f"{self.names} {seed} {processes}"

    def builder(self, *_: object, **__: object) -> NoReturn:
        raise NotImplementedError


def plan(data: Data, state: StateInfo | None = None, **options) -> RunPlan:
    session = SimpleNamespace(seed=1, resumed=state, accelerator=SimpleNamespace(num_processes=1))
    return plan_run(TrainingOptions(**options), session, data)


def state_at(step: int, of: RunPlan) -> StateInfo:
    steps_per_epoch = of.course.steps_per_epoch
    return StateInfo(
        1, step, seed=1, steps_per_epoch=steps_per_epoch, optimizer="x", data=of.fingerprint, folder="x-state"
    )


def test_steps_and_epochs_of_a_run() -> None:
    found = plan(Data(), max_train_steps=7, gradient_accumulation_steps=3)
    assert (found.first_step, found.last_step, found.epochs) == (0, 7, 4)  # two steps an epoch
    assert [found.epoch_after(step) for step in (1, 2, 3, 4)] == [1, 1, 2, 2]
    assert [step for step in range(1, 8) if found.ends_epoch(step)] == [2, 4, 6]


def test_epochs_win_over_steps() -> None:
    assert plan(Data(), max_train_steps=7, max_train_epochs=3).last_step == 12


def test_a_state_of_the_same_data_goes_on_at_its_step() -> None:
    found = plan(Data(), max_train_steps=9)
    assert plan(Data(), state_at(6, found), max_train_steps=9).first_step == 6


def test_a_state_of_other_data_goes_on_at_the_start_of_its_epoch(capsys: pytest.CaptureFixture) -> None:
    found = plan(Data(), max_train_steps=9)
    assert (
        plan(Data("abcdefghi"), state_at(6, found), max_train_steps=9).first_step == 5
    )  # five batches an epoch
    assert "going on from the start of epoch 2, step 5" in capsys.readouterr().err


def test_a_state_that_has_come_further_is_refused() -> None:
    found = plan(Data(), max_train_steps=9)
    with pytest.raises(UserError, match="--resume: there are 10 steps .*; raise --max_train_steps"):
        plan(Data(), state_at(10, found), max_train_steps=9)


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({"initial_step": 5}, 5),
        ({"initial_epoch": 2}, 4),  # four steps an epoch
        ({"initial_step": 0, "initial_epoch": 1}, 0),
    ],
)
def test_a_run_begins_where_it_is_told(options: dict, first: int, capsys: pytest.CaptureFixture) -> None:
    assert plan(Data(), max_train_steps=9, **options).first_step == first
    assert capsys.readouterr().err == ""
    state = state_at(6, plan(Data(), max_train_steps=9))
    assert plan(Data(), state, max_train_steps=9, **options).first_step == (first or 6)
    told = f"warning: the state has 6 steps behind it; going on as if there were {first}\n"
    assert capsys.readouterr().err == (told if first else "")


def test_a_beginning_behind_the_end_is_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(UserError, match="--initial_step: there are 9 steps behind it, this run ends at 9"):
        plan(Data(), max_train_steps=9, initial_step=9, initial_epoch=2)
    assert capsys.readouterr().err == "warning: --initial_epoch gives way to --initial_step\n"
