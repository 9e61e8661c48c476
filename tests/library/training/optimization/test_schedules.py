"""The schedules' rates are those of transformers, diffusers and torch, whose names they have."""

from __future__ import annotations

import math

import pytest
import torch

from library.options.optimizer import OptimizerOptions
from library.options.schedule import READS, ScheduleOptions, read_steps
from library.problems import UserError
from library.training.optimization.optimizers import make_optimizer
from library.training.optimization.schedules import SCHEDULES, make_schedule

STEPS = 20


def optimizer(*rates: float, name: str = "SGDNesterov") -> torch.optim.Optimizer:
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate, "name": f"group{number}"}
        for number, rate in enumerate(rates)
    ]
    return make_optimizer(groups, OptimizerOptions(optimizer_type=name))


def rates(options: ScheduleOptions, base: float = 1.0, steps: int = STEPS) -> list[float]:
    """The learning rate of each step."""
    schedule = make_schedule(optimizer(base), options, steps)
    return [schedule.rates_at(step)[0] for step in range(steps)]


def rates_of(scheduler: torch.optim.lr_scheduler.LRScheduler) -> list[float]:
    """The learning rates of a library's scheduler."""
    found = []
    for _ in range(STEPS):
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("name", "warmup", "expected"),
    [
        ("constant", 0, [1, 1, 1, 1, 1, 1]),
        ("constant_with_warmup", 2, [0, 0.5, 1, 1, 1, 1]),
        ("linear", 2, [0, 0.5, 1, 0.75, 0.5, 0.25]),
        ("linear", "50%", [0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]),
        ("cosine", 2, [0, 0.5, *((1 + math.cos(math.pi * k / 4)) / 2 for k in range(4))]),
    ],
)
def test_schedules_give_their_rates(name: str, warmup: object, expected: list[float]) -> None:
    options = ScheduleOptions(lr_scheduler=name, lr_warmup_steps=read_steps(warmup))
    assert rates(options, steps=6) == pytest.approx(expected)


# sd-scripts gives transformers half of --lr_scheduler_num_cycles where that counts whole waves.
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        ({"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 4}, {"num_warmup_steps": 4}),
        ({"lr_scheduler": "linear", "lr_warmup_steps": 4}, {"num_warmup_steps": 4}),
        ({"lr_scheduler": "cosine", "lr_warmup_steps": 0.1}, {"num_warmup_steps": 2}),
        (
            {"lr_scheduler": "cosine", "lr_scheduler_args": ("num_cycles=1.5",)},
            {"scheduler_specific_kwargs": {"num_cycles": 1.5}},
        ),
        (
            {"lr_scheduler": "cosine_with_restarts", "lr_scheduler_num_cycles": 3, "lr_warmup_steps": 2},
            {"num_warmup_steps": 2, "scheduler_specific_kwargs": {"num_cycles": 3}},
        ),
        (
            {"lr_scheduler": "polynomial", "lr_scheduler_power": 2.0, "lr_warmup_steps": 2},
            {"num_warmup_steps": 2, "scheduler_specific_kwargs": {"power": 2.0}},
        ),
        (
            {"lr_scheduler": "polynomial", "lr_scheduler_args": ("lr_end=0.01",)},
            {"scheduler_specific_kwargs": {"lr_end": 0.01}},
        ),
        ({"lr_scheduler": "inverse_sqrt", "lr_warmup_steps": 4}, {"num_warmup_steps": 4}),
        ({"lr_scheduler": "inverse_sqrt"}, {}),
        (
            {"lr_scheduler": "inverse_sqrt", "lr_scheduler_timescale": 7, "lr_warmup_steps": 2},
            {"num_warmup_steps": 2, "scheduler_specific_kwargs": {"timescale": 7}},
        ),
        (
            {"lr_scheduler": "cosine_with_min_lr", "lr_scheduler_min_lr_ratio": 0.1, "lr_warmup_steps": 3},
            {"num_warmup_steps": 3, "scheduler_specific_kwargs": {"min_lr_rate": 0.1}},
        ),
        (
            {
                "lr_scheduler": "cosine_with_min_lr",
                "lr_scheduler_num_cycles": 3,
                "lr_scheduler_args": ("min_lr=0.2",),
            },
            {"scheduler_specific_kwargs": {"min_lr": 0.2, "num_cycles": 1.5}},
        ),
        (
            {
                "lr_scheduler": "cosine_warmup_with_min_lr",
                "lr_scheduler_min_lr_ratio": 0.1,
                "lr_warmup_steps": 3,
            },
            {"num_warmup_steps": 3, "scheduler_specific_kwargs": {"min_lr_rate": 0.1}},
        ),
        (
            {
                "lr_scheduler": "cosine_warmup_with_min_lr",
                "lr_scheduler_min_lr_ratio": 0.1,
                "lr_warmup_steps": 4,
                "lr_scheduler_args": ("warmup_lr_rate=0.3",),
            },
            {
                "num_warmup_steps": 4,
                "scheduler_specific_kwargs": {"min_lr_rate": 0.1, "warmup_lr_rate": 0.3},
            },
        ),
        (
            {"lr_scheduler": "warmup_stable_decay", "lr_warmup_steps": 3, "lr_decay_steps": 0.25},
            {"num_warmup_steps": 3, "scheduler_specific_kwargs": {"num_decay_steps": 5}},
        ),
        (
            {
                "lr_scheduler": "warmup_stable_decay",
                "lr_warmup_steps": 3,
                "lr_decay_steps": 6,
                "lr_scheduler_min_lr_ratio": 0.2,
                "lr_scheduler_args": ("warmup_type='1-sqrt'", "decay_type='linear'"),
            },
            {
                "num_warmup_steps": 3,
                "scheduler_specific_kwargs": {
                    "num_decay_steps": 6,
                    "min_lr_ratio": 0.2,
                    "warmup_type": "1-sqrt",
                    "decay_type": "linear",
                },
            },
        ),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if "lr_scheduler" in value else "theirs",
)
def test_rates_are_those_of_transformers(options: dict, theirs: dict) -> None:
    from transformers import get_scheduler

    name = options.get("lr_scheduler", "constant")
    steps = {"num_training_steps": STEPS} if theirs or "cosine" in name or name == "linear" else {}
    expected = rates_of(get_scheduler(name, optimizer(0.5), **{"num_warmup_steps": 0, **steps, **theirs}))
    assert rates(ScheduleOptions(**options), 0.5) == pytest.approx(expected, abs=1e-12)


def test_steps_of_a_piecewise_constant_rate_are_those_of_diffusers() -> None:
    from diffusers.optimization import get_piecewise_constant_schedule

    rules = "1:5,0.5:12,0.1"
    options = ScheduleOptions(lr_scheduler="piecewise_constant", lr_scheduler_args=(f"step_rules='{rules}'",))
    found = rates(options, 0.5)
    assert found == rates_of(get_piecewise_constant_schedule(optimizer(0.5), rules))
    assert found == [0.5] * 5 + [0.25] * 7 + [0.05] * 8


def test_every_schedule_of_the_options_has_a_formula() -> None:
    from typing import get_args

    from library.options.schedule import ScheduleName

    assert set(get_args(ScheduleName)) == set(SCHEDULES) > set(READS)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("StepLR", {"step_size": 4, "gamma": 0.5}),
        ("CosineAnnealingWarmRestarts", {"T_0": 5, "T_mult": 2}),
        ("ExponentialLR", {"gamma": 0.9}),
        ("torch.optim.lr_scheduler.MultiStepLR", {"milestones": [3, 9]}),
        ("OneCycleLR", {"max_lr": 1.0, "total_steps": STEPS}),
    ],
)
def test_scheduler_classes_give_their_rates_from_any_step(name: str, arguments: dict) -> None:
    words = tuple(f"{key}={value!r}" for key, value in arguments.items())
    options = ScheduleOptions(lr_scheduler_type=name, lr_scheduler_args=words)
    theirs = getattr(torch.optim.lr_scheduler, name.split(".")[-1])
    driven = optimizer(0.5)
    expected = []
    scheduler = theirs(driven, **arguments)
    for step in range(STEPS):
        expected.append((driven.param_groups[0]["lr"], driven.param_groups[0]["momentum"]))
        driven.step()
        if step < STEPS - 1:
            scheduler.step()
    for first in (0, 13):  # as a resumed run does
        ours = optimizer(0.5)
        schedule = make_schedule(ours, options, STEPS)
        found = []
        for step in range(first, STEPS):
            schedule.set_rates(step)
            found.append((ours.param_groups[0]["lr"], ours.param_groups[0]["momentum"]))
        assert found == expected[first:]


def test_each_group_follows_from_its_own_rate() -> None:
    for options in (
        ScheduleOptions(lr_scheduler="linear"),
        ScheduleOptions(
            lr_scheduler_type="LinearLR", lr_scheduler_args=("start_factor=1.0", "end_factor=0.5")
        ),
    ):
        driven = optimizer(0.5, 0.1)
        schedule = make_schedule(driven, options, 4)
        schedule.set_rates(2)
        first, second = (group["lr"] for group in driven.param_groups)
        assert first == pytest.approx(5 * second) and first < 0.5


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"lr_scheduler_type": "ReduceLROnPlateau"},
            "--lr_scheduler_type ReduceLROnPlateau: wants metrics at each step, and rates here depend on the "
            "step alone; choose another one",
        ),
        (
            {"lr_scheduler_type": "StepLR"},
            "--lr_scheduler_type StepLR: does not take these arguments: .*step_size",
        ),
        (
            {"lr_scheduler_type": "NoLR"},
            "--lr_scheduler_type NoLR: there is no NoLR in torch.optim.lr_scheduler",
        ),
        ({"lr_scheduler_type": "no_package.LR"}, "--lr_scheduler_type no_package.LR: cannot be imported"),
        (
            {"lr_scheduler": "polynomial", "lr_scheduler_args": ("lr_end=1",)},
            "--lr_scheduler polynomial: ends at lr_end=1, which is not below the learning rate 0.5",
        ),
        (
            {"lr_scheduler": "linear", "lr_scheduler_args": ("slope=1",)},
            "--lr_scheduler_args slope: linear takes no such argument; leave it out",
        ),
        (
            {"lr_scheduler": "cosine", "lr_scheduler_args": ("cycles=1",)},
            "--lr_scheduler_args cycles: cosine takes no such argument; it takes num_cycles",
        ),
        (
            {"lr_scheduler": "piecewise_constant", "lr_scheduler_args": ("step_rules='1-10'",)},
            "--lr_scheduler piecewise_constant: could not convert",
        ),
        (
            {"lr_scheduler": "warmup_stable_decay", "lr_warmup_steps": 15, "lr_decay_steps": "10"},
            "--lr_decay_steps: 10 steps of decay after 15 of warm-up are more than the run's 20",
        ),
        ({"lr_scheduler": "adafactor"}, "--lr_scheduler adafactor: is of --optimizer_type AdaFactor"),
    ],
)
def test_schedules_that_cannot_be_are_one_line(options: dict, line: str) -> None:
    if "lr_decay_steps" in options:
        options = options | {"lr_decay_steps": read_steps(options["lr_decay_steps"])}
    with pytest.raises(UserError, match=line):
        make_schedule(optimizer(0.5), ScheduleOptions(**options), STEPS)


def test_a_class_that_fails_in_its_own_way_is_one_line() -> None:
    options = ScheduleOptions(lr_scheduler_type="StepLR", lr_scheduler_args=("step_size=0",))
    with pytest.raises(UserError, match="^--lr_scheduler_type StepLR: has no rate for step 2: .*zero$"):
        make_schedule(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), options, 5)


def test_a_warm_up_that_the_run_does_not_outlast_is_told(capsys: pytest.CaptureFixture) -> None:
    options = ScheduleOptions(lr_scheduler="linear", lr_warmup_steps=100)
    make_schedule(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), options, 5)
    assert capsys.readouterr().err == (
        "warning: --lr_warmup_steps 100: the run ends before its learning rate is reached (5 steps)\n"
    )


def test_a_schedule_free_optimizer_keeps_its_rate() -> None:
    """During warm-up too: it has a warm-up of its own."""
    options = ScheduleOptions(lr_scheduler="cosine", lr_warmup_steps=4)
    schedule = make_schedule(optimizer(0.5, name="AdamWScheduleFree"), options, STEPS)
    assert [schedule.rates_at(step) for step in range(STEPS)] == [[0.5]] * STEPS


def test_a_class_that_ends_before_the_run_says_so() -> None:
    words = ("max_lr=1.0", "total_steps=3")
    options = ScheduleOptions(lr_scheduler_type="OneCycleLR", lr_scheduler_args=words)
    with pytest.raises(UserError, match="--lr_scheduler_type OneCycleLR: has no rate for step 5"):
        make_schedule(optimizer(0.5), options, STEPS)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"lr_scheduler": "cosine_with_min_lr"},
            "--lr_scheduler: cosine_with_min_lr needs --lr_scheduler_min_lr_ratio",
        ),
        (
            {"lr_scheduler": "piecewise_constant"},
            "--lr_scheduler: piecewise_constant needs --lr_scheduler_args \"step_rules='1:100,0.1'\" "
            "(1 up to step 100, then 0.1)",
        ),
        ({"lr_scheduler_args": ("T_0",)}, "--lr_scheduler_args: expects name=value, got 'T_0'"),
        ({"lr_scheduler_num_cycles": 0}, "--lr_scheduler_num_cycles: must be 1 or more"),
        ({"lr_scheduler_min_lr_ratio": 2.0}, "--lr_scheduler_min_lr_ratio: must be 0 to 1"),
    ],
)
def test_options_that_cannot_be_are_one_line(options: dict, line: str) -> None:
    with pytest.raises(UserError) as error:
        ScheduleOptions(**options)
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"lr_scheduler": "cosine", "lr_scheduler_power": 2.0},
            "--lr_scheduler_power has no effect with --lr_scheduler cosine",
        ),
        (
            {"lr_decay_steps": 5, "lr_scheduler": "linear"},
            "--lr_decay_steps has no effect with --lr_scheduler linear",
        ),
        (
            {"lr_scheduler": "cosine", "lr_scheduler_type": "StepLR"},
            "--lr_scheduler has no effect with --lr_scheduler_type StepLR",
        ),
        (
            {"lr_scheduler": "warmup_stable_decay"},
            "--lr_scheduler warmup_stable_decay does not decay without --lr_decay_steps",
        ),
    ],
)
def test_options_without_effect_are_a_warning(
    options: dict, line: str, capsys: pytest.CaptureFixture
) -> None:
    ScheduleOptions(**options)
    assert capsys.readouterr().err == f"warning: {line}\n"


def test_the_name_of_no_schedule_is_one_line_and_nothing_untrue(capsys: pytest.CaptureFixture) -> None:
    from dataclasses import dataclass

    from library.options.parser import read_command_line

    @dataclass(frozen=True)
    class Run:
        schedule: ScheduleOptions

    words = ["--lr_scheduler", "cosin", "--lr_warmup_steps", "5", "--lr_scheduler_power", "2"]
    (problem,) = read_command_line(Run, argv=[*words, "--scheduler_args", "power=2"]).problems
    assert problem.where == "--lr_scheduler" and problem.cause.startswith("expects one of constant, ")
    assert capsys.readouterr().err == ""
    two = read_command_line(Run, argv=[*words, "--scheduler_args", "power"]).problems
    assert [problem.where for problem in two] == ["--lr_scheduler", "--lr_scheduler_args"]
