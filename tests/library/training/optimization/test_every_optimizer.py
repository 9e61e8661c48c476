"""Each optimizer of the table learns, resumes exactly from a state, and reports its learning rate."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from held import whole
from torch import Tensor, nn

from library.options.optimizer import OptimizerOptions
from library.options.schedule import ScheduleOptions
from library.problems import UserError
from library.training.learner import Learner
from library.training.optimization.ledger import Ledger
from library.training.optimization.optimizers import OPTIMIZERS, class_path, make_optimizer
from library.training.optimization.schedules import make_schedule
from library.training.optimization.self_tuning import rates_for_logs
from library.training.position import StateInfo, read_state_info
from library.training.saving.state import load_state, write_state

STEPS = 12
pytestmark = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")


class Fit(nn.Module):
    """Two matrices that should become all ones, with noise that depends on the step. One has 8-bit states."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.unet = nn.Parameter(torch.rand(64, 80, generator=generator) / 10)
        self.text = nn.Parameter(torch.rand(8, 8, generator=generator) / 10)

    def loss(self, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        return sum(
            ((p - 1) * (1 + torch.rand(p.shape, generator=generator))).square().mean()
            for p in (self.unet, self.text)
        )

    def trained_tensors(self) -> dict[str, Tensor]:
        return {"unet": self.unet.data, "text": self.text.data}

    def load_trained_tensors(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in self.trained_tensors().items():
            tensor.copy_(tensors[name])


class Training:
    """A run of an optimizer on `Fit`."""

    def __init__(
        self, name: str, *args: str, rate: float | None = None, schedule: ScheduleOptions | None = None
    ) -> None:
        rate = rate or (1.0 if estimates_rate(name) else 0.02)
        self.options = OptimizerOptions(optimizer_type=name, optimizer_args=args, learning_rate=rate)
        self.task = Fit()
        groups = [
            {"params": [self.task.unet], "lr": rate, "name": "unet"},
            {"params": [self.task.text], "lr": rate, "name": "textencoder"},
        ]
        self.optimizer = make_optimizer(groups, self.options)
        self.schedule = make_schedule(self.optimizer, schedule or ScheduleOptions(), STEPS)
        self.learner = Learner(self.task, self.optimizer, None, None, Ledger([], 0, whole()), whole())
        self.rates: list[dict[str, float]] = []

    def train(self, first: int, last: int, *, look: bool = False) -> Training:
        """look: look at the result after each step, as previews do."""
        self.learner.train()
        for step in range(first, last):
            self.schedule.set_rates(step)
            self.task.loss(step).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.rates.append({key: float(rate) for key, rate in rates_for_logs(self.optimizer).items()})
            if look:
                with self.learner.as_result():
                    self.task.loss(step)
        return self

    def save(self, folder: Path) -> Path:
        info = StateInfo(1, STEPS // 2, 0, STEPS, class_path(self.options), "")
        write_state(folder, info, self.learner)
        return folder

    def resume(self, folder: Path) -> Training:
        load_state(read_state_info(folder), self.learner, class_path(self.options))
        return self


def estimates_rate(name: str) -> bool:
    return name.startswith("DAdapt") or name == "Prodigy"


def same(one: Training, other: Training) -> bool:
    mine, yours = one.task.trained_tensors(), other.task.trained_tensors()
    return all(torch.equal(tensor, yours[name]) for name, tensor in mine.items())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_loss_falls(name: str) -> None:
    """Optimizers that estimate their rate need longer for it; RAdam moves nothing at first."""
    steps = {"DAdaptSGD": 40, "RAdamScheduleFree": 40}.get(name, 160 if estimates_rate(name) else STEPS)
    training = Training(name)
    before = training.task.loss(0).item()
    training.train(0, steps)
    with training.learner.as_result():
        assert training.task.loss(0).item() < 0.995 * before


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_going_on_from_a_state_is_the_same_as_never_stopping(name: str, tmp_path: Path) -> None:
    warmup = 0 if name == "DAdaptSGD" else 3
    schedule = ScheduleOptions(lr_scheduler="linear", lr_warmup_steps=warmup)
    whole = Training(name, schedule=schedule).train(0, STEPS)
    folder = Training(name, schedule=schedule).train(0, 5, look=True).save(tmp_path / "a-state")
    second = Training(name, schedule=schedule).resume(folder).train(5, 9, look=True)
    folder = second.save(tmp_path / "b-state")  # resumed twice in a row
    third = Training(name, schedule=schedule).resume(folder).train(9, STEPS)
    assert same(whole, third)
    assert whole.rates[9:] == third.rates
    assert not same(whole, second)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_group_says_its_rate(name: str) -> None:
    rates = Training(name).train(0, 1).rates[0]
    own = {"lr/unet", "lr/textencoder"}
    finds_rate = estimates_rate(name)
    assert rates.keys() == own | ({"lr/d*lr/unet", "lr/d*lr/textencoder"} if finds_rate else set())
    if name == "RAdamScheduleFree":
        assert rates["lr/unet"] == 0  # its first steps move nothing
    elif name == "AdaFactor":  # a hundredth of the parameters' size, its paper's relative step
        size = Fit().unet.square().mean().sqrt().item()
        assert rates["lr/unet"] == pytest.approx(0.01 * size)
    else:
        assert rates["lr/unet"] == (1.0 if finds_rate else 0.02)


def test_d_adaptation_says_what_its_rate_comes_to() -> None:
    training = Training("DAdaptAdam", rate=0.5, schedule=ScheduleOptions(lr_scheduler="linear"))
    rates = training.train(0, STEPS).rates
    d = training.optimizer.param_groups[0]["d"]
    assert d > 1e-6
    assert rates[-1]["lr/d*lr/unet"] == d * rates[-1]["lr/unet"] == pytest.approx(d * 0.5 / STEPS)


def test_adafactor_follows_a_schedule_when_its_steps_are_not_relative() -> None:
    schedule = ScheduleOptions(lr_scheduler="linear")
    training = Training("adafactor", "relative_step=False", "scale_parameter=False", schedule=schedule)
    assert [row["lr/unet"] for row in training.train(0, 3).rates] == pytest.approx(
        [0.02, 0.22 / 12, 0.2 / 12]
    )


def test_adafactors_own_warm_up_makes_its_steps_relative(capsys: pytest.CaptureFixture) -> None:
    training = Training("AdaFactor", "warmup_init=True", "scale_parameter=False", "relative_step=False")
    assert [row["lr/unet"] for row in training.train(0, 3).rates] == pytest.approx([1e-6, 2e-6, 3e-6])
    line = "warning: --optimizer_args relative_step=False has no effect with warmup_init=True\n"
    assert capsys.readouterr().err == line


def test_the_result_of_a_schedule_free_optimizer_is_its_average() -> None:
    training = Training("AdamWScheduleFree", "warmup_steps=4").train(0, STEPS)
    kept = {name: tensor.clone() for name, tensor in training.task.trained_tensors().items()}
    with training.learner.as_result():
        shown = {name: tensor.clone() for name, tensor in training.task.trained_tensors().items()}
    for name, parameter in (("unet", training.task.unet), ("text", training.task.text)):
        z = training.optimizer.state[parameter]["z"]
        # x, of which training's y = (1 - beta) z + beta x (Defazio et al. 2024, eq. 3)
        torch.testing.assert_close(shown[name], (kept[name] - 0.1 * z) / 0.9)
        assert torch.equal(parameter.data, kept[name])
    assert [row["lr/unet"] for row in training.rates[:5]] == pytest.approx([0.005, 0.01, 0.015, 0.02, 0.02])


def test_a_run_that_goes_on_has_the_settings_it_is_given_now(tmp_path: Path) -> None:
    folder = Training("Prodigy", "weight_decay=0.5", "d0=1e-3").train(0, 6).save(tmp_path / "x-state")
    resumed = Training("Prodigy", "betas=0.5,0.9").resume(folder)
    for group in resumed.optimizer.param_groups:
        assert (group["weight_decay"], group["betas"], group["d0"]) == (0, (0.5, 0.9), 1e-6)
        assert group["d"] >= 1e-3 and group["k"] == 6  # what it has learned


@pytest.mark.parametrize("name", ["Prodigy", "DAdaptAdam", "DAdaptAdan"])
def test_one_who_finds_its_rate_has_one_for_all(name: str) -> None:
    groups = [{"params": [nn.Parameter(torch.ones(2))], "lr": rate, "name": str(rate)} for rate in (1.0, 0.5)]
    with pytest.raises(UserError) as error:
        make_optimizer(groups, OptimizerOptions(optimizer_type=name))
    assert str(error.value) == (
        f"--optimizer_type {name}: has one learning rate for everything, this run gives 0.5, 1.0; "
        "give all parts the same, or 0 to those not to be trained"
    )


def test_lion_takes_steps_of_its_rate() -> None:
    training = Training("lion", "weight_decay=0")
    before = training.task.unet.detach().clone()
    training.train(0, 1)
    moved = (training.task.unet.detach() - before).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.02))


def test_dadaptsgd_is_refused_a_warm_up_from_0_which_it_would_divide_by() -> None:
    schedule = ScheduleOptions(lr_scheduler="linear", lr_warmup_steps=3)
    with pytest.raises(UserError) as error:
        Training("DAdaptSGD", schedule=schedule)
    assert str(error.value) == (
        "--lr_warmup_steps: starts at a learning rate of 0, which DAdaptSGD divides by; "
        "leave it out, or let the rate grow slowly with --optimizer_args growth_rate=1.02"
    )
