import math

import pytest
import torch

from library.problems import UserError
from library.training.trackers import READ_EVERY, LossLog


class OneProcess:
    """An accelerator of one process that counts how often losses were read."""

    def __init__(self) -> None:
        self.reads = 0

    def reduce(self, tensor: torch.Tensor, kind: str) -> torch.Tensor:
        self.reads += 1
        return tensor


class Writer:
    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def write(self, step: int, values: dict[str, float]) -> None:
        self.lines.append((step, values))

    def close(self) -> None:
        pass


def test_losses_are_read_at_the_first_step_and_then_every_few() -> None:
    accelerator, writer = OneProcess(), Writer()
    log = LossLog(accelerator, writer)
    for step in range(1, 2 * READ_EVERY + 2):
        log.add(step, 0, torch.tensor(float(step)), {"lr/unet": 0.5})
    assert accelerator.reads == 3
    assert [step for step, _ in writer.lines] == list(range(1, 2 * READ_EVERY + 2))
    assert writer.lines[2][1] == {"loss/current": 3.0, "loss/average": 2.0, "lr/unet": 0.5}


def test_figures_on_the_device_are_written_as_numbers() -> None:
    writer = Writer()
    LossLog(OneProcess(), writer).add(1, 0, torch.tensor(1.0), {"max_norm/keys_scaled": torch.tensor(3)})
    assert writer.lines == [(1, {"loss/current": 1.0, "loss/average": 1.0, "max_norm/keys_scaled": 3.0})]


def test_the_average_begins_anew_with_each_epoch() -> None:
    log = LossLog(OneProcess(), None)
    assert log.average is None
    log.add(1, 0, torch.tensor(4.0), {})
    log.add(2, 1, torch.tensor(2.0), {})
    log.read()
    assert log.average == 2.0


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(loss: float) -> None:
    log = LossLog(OneProcess(), None)
    log.add(1, 0, torch.tensor(1.0), {})
    log.add(2, 0, torch.tensor(loss), {})
    with pytest.raises(UserError, match="^step 2: the loss is"):
        log.close()
