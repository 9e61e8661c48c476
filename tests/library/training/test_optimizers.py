import math

import pytest
import torch

from library.options.optimizer import OptimizerOptions
from library.problems import UserError
from library.training.optimizers import describe_optimizer, make_optimizer, parse_optimizer_args
from library.training.schedules import Schedule


def group(lr: float = 0.1) -> list[dict]:
    return [{"params": [torch.nn.Parameter(torch.ones(64, 64))], "lr": lr, "name": "unet"}]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("", "torch.optim.adamw.AdamW"),
        ("adamw", "torch.optim.adamw.AdamW"),
        ("AdamW8bit", "bitsandbytes.optim.adamw.AdamW8bit"),
        ("lion", "lion_pytorch.lion_pytorch.Lion"),
        ("SGDNesterov", "torch.optim.sgd.SGD"),
        ("RMSprop", "torch.optim.rmsprop.RMSprop"),
        ("torch.optim.Adam", "torch.optim.adam.Adam"),
    ],
)
def test_names_and_dotted_paths_give_their_class(name: str, path: str) -> None:
    optimizer = make_optimizer(group(), OptimizerOptions(optimizer_type=name))
    assert f"{type(optimizer).__module__}.{type(optimizer).__name__}" == path


@pytest.mark.parametrize("name", ["", "AdamW8bit", "Lion", "SGDNesterov"])
def test_every_optimizer_moves_its_parameters(name: str) -> None:
    groups = group()
    optimizer = make_optimizer(groups, OptimizerOptions(optimizer_type=name))
    groups[0]["params"][0].grad = torch.ones(64, 64)
    optimizer.step()
    assert (groups[0]["params"][0] < 1).all()


def test_sgd_nesterov_has_its_momentum_unless_told_otherwise() -> None:
    defaults = make_optimizer(group(), OptimizerOptions(optimizer_type="SGDNesterov")).defaults
    assert (defaults["nesterov"], defaults["momentum"]) == (True, 0.9)
    other = OptimizerOptions(optimizer_type="SGDNesterov", optimizer_args=("momentum=0.5",))
    assert make_optimizer(group(), other).defaults["momentum"] == 0.5


def test_optimizer_args_are_python_values() -> None:
    read = parse_optimizer_args(("weight_decay=0.01", "betas=0.9,0.999", "amsgrad=True", "name='x=y'"))
    assert read == {"weight_decay": 0.01, "betas": (0.9, 0.999), "amsgrad": True, "name": "x=y"}


def test_bad_optimizer_args_are_all_named() -> None:
    with pytest.raises(UserError) as error:
        parse_optimizer_args(("betas=abc", "eps=1e", "weight_decay=1"))
    assert [problem.where for problem in error.value.problems] == [
        "--optimizer_args betas",
        "--optimizer_args eps",
    ]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("Prodigy", "--optimizer_type Prodigy: is not available yet"),
        ("AdamX", "--optimizer_type AdamX: there is no AdamX in torch.optim"),
        ("no_package.Best", "--optimizer_type no_package.Best: cannot be imported"),
    ],
)
def test_what_is_no_optimizer_is_refused(name: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        make_optimizer(group(), OptimizerOptions(optimizer_type=name))


def test_arguments_an_optimizer_does_not_take_are_refused() -> None:
    with pytest.raises(UserError, match="does not take these arguments"):
        make_optimizer(group(), OptimizerOptions(optimizer_args=("speed=3",)))


def test_metadata_names_class_and_arguments() -> None:
    options = OptimizerOptions(optimizer_type="adamw", optimizer_args=("weight_decay=0.1", "eps=1e-6"))
    assert describe_optimizer(options) == "torch.optim.adamw.AdamW(weight_decay=0.1,eps=1e-6)"


def rates(options: OptimizerOptions, steps: int) -> list[float]:
    """The learning rate of each step."""
    schedule = Schedule(make_optimizer(group(1.0), options), options, steps)
    return [schedule.rates_at(step)[0] for step in range(steps)]


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
    from library.options.optimizer import read_steps

    options = OptimizerOptions(lr_scheduler=name, lr_warmup_steps=read_steps(warmup))
    assert rates(options, 6) == pytest.approx(expected)


def test_rates_are_given_to_the_optimizer_and_named() -> None:
    options = OptimizerOptions(lr_scheduler="linear")
    optimizer = make_optimizer(group(0.5), options)
    assert Schedule(optimizer, options, 4).set_rates(1) == {"lr/unet": 0.375}
    assert optimizer.param_groups[0]["lr"] == 0.375


def test_schedule_free_optimizers_are_refused() -> None:
    class Averaging(torch.optim.SGD):
        def eval(self) -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "Averaging", Averaging, raising=False)
        with pytest.raises(UserError, match="schedule-free"):
            make_optimizer(group(), OptimizerOptions(optimizer_type="Averaging"))
