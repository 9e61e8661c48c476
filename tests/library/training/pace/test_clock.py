"""The clock, on a device that is behind its host as a GPU is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from library.training.pace.clock import Clock
from library.training.pace.watch import TimedBatch


class Device:
    """A device that does what it is given in order, and its host, in seconds."""

    def __init__(self) -> None:
        self.host = self.done = 0.0

    def give(self, seconds: float) -> None:
        """Work; the host does not wait for it."""
        self.done = max(self.done, self.host) + seconds

    def mark(self) -> float:
        self.done = max(self.done, self.host)
        return self.done

    def is_past(self, mark: float) -> bool:
        return mark <= self.host

    def wait(self, mark: float) -> None:
        self.host = max(self.host, mark)

    def seconds(self, first: float, second: float) -> float:
        return second - first

    def reuse(self, mark: float) -> None:
        pass


def batches(device: Device, count: int, seconds: float) -> Iterator[int]:
    for number in range(count):
        device.host += seconds
        yield number


def step(clock: Clock, device: Device) -> None:
    clock.begin("kind", 64)
    for part, seconds in (("forward", 1.0), ("backward", 2.0), ("optimizer", 0.5)):
        device.give(seconds)
        clock.end(part)  # type: ignore[arg-type]


def test_the_parts_of_steps_are_told_once_the_device_has_passed_them() -> None:
    device = Device()
    clock = Clock(device, lambda: device.host)
    for _ in clock.waiting(batches(device, 3, 0.0)):
        step(clock, device)
    assert clock.passed() == []  # the device has not begun, and nobody waits for it
    device.host = 8.0
    assert clock.passed() == [TimedBatch("kind", 64, 3.5), TimedBatch("kind", 64, 3.5)]
    with clock.part("saving"):
        device.host = 20.0
    clock.conclude()
    told = {part: seconds for part, seconds in clock.seconds.items() if seconds}
    assert told == {"forward": 3.0, "backward": 6.0, "optimizer": 1.5, "saving": 9.5}


@pytest.mark.parametrize(("each", "waited"), [(0.5, 0.0), (5.0, 1.5)])
def test_waiting_is_only_when_the_device_has_nothing_to_do(each: float, waited: float) -> None:
    """A host that waits for data while the device is busy loses nothing."""
    device = Device()
    clock = Clock(device, lambda: device.host)
    for _ in clock.waiting(batches(device, 4, each)):
        step(clock, device)
    clock.conclude()
    assert clock.seconds["waiting for data"] == each + 3 * waited  # nothing is there before the first


def test_accumulated_batches_are_told_one_by_one_and_a_step_that_broke_is_not() -> None:
    device = Device()
    clock = Clock(device, lambda: device.host)
    clock.begin(("kind", False), 64)
    device.give(3.0)
    clock.end("backward")
    clock.begin(("kind", True), 64)
    device.give(4.0)
    clock.end("backward")
    clock.end("optimizer")
    clock.begin(("kind", True), 64)  # and its forward pass raises
    clock.conclude()
    assert [batch for batch in clock.seconds.items() if batch[1]] == [("backward", 7.0)]
