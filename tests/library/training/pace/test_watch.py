"""The watch, on sixty runs of a simulated card: each sick one is told of once, in time and by its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pace_traces import COOL, HEALTHY, SICK, WINDOWS, Trace

from library.training.pace.findings import Reading
from library.training.pace.watch import LOOK_EVERY, TimedBatch, Watch

SEEDS, ALL_SEEDS = range(10), range(1000)


def faults(trace: Trace, seeds: range) -> list[tuple[int, list[tuple[int, str]]]]:
    """The seeds with which something else is told than should be, and what."""
    return [(seed, told) for seed in seeds if not is_right(trace, told := signs(trace, seed))]


def signs(trace: Trace, seed: int) -> list[tuple[int, str]]:
    return [(step, finding.sign) for step, finding in trace.told(seed)]


def is_right(trace: Trace, told: list[tuple[int, str]]) -> bool:
    if trace.sign is None:
        return told == []
    in_time = bool(told) and trace.onset <= told[0][0] < trace.onset + 20
    return in_time and [sign for _, sign in told] == [trace.sign] * trace.lines


def test_there_are_forty_sick_runs_and_twenty_odd_ones() -> None:
    assert (len(SICK), len(HEALTHY)) == (40, 20)
    assert len({trace.name + str(trace.sign) for trace in (*SICK, *HEALTHY)}) == 60


@pytest.mark.parametrize("trace", SICK, ids=lambda trace: f"{trace.sign}: {trace.name}")
def test_a_sick_run_is_told_of_within_twenty_steps(trace: Trace) -> None:
    assert faults(trace, SEEDS) == []


@pytest.mark.parametrize("trace", HEALTHY, ids=lambda trace: trace.name)
def test_a_healthy_run_is_left_alone(trace: Trace) -> None:
    assert faults(trace, SEEDS) == []


@pytest.mark.long
@pytest.mark.parametrize("trace", (*SICK, *HEALTHY), ids=lambda trace: f"{trace.sign}: {trace.name}")
def test_so_it_is_whatever_the_noise(trace: Trace) -> None:
    assert faults(trace, ALL_SEEDS) == []


@pytest.mark.parametrize("card", [COOL, WINDOWS])
def test_nothing_is_told_of_real_runs_on_a_busy_machine(card: Reading) -> None:
    """[kind, whether it ends a step, size, seconds, waited] of batches in this suite's trainings, recorded on
    two cores with a load of five to ten.
    """
    runs = json.loads((Path(__file__).parents[3] / "data" / "step_times.json").read_text())
    assert sum(len(run["batches"]) for run in runs) > 900
    for run in runs:
        watch, steps = Watch(), 0
        for kind, closes, size, seconds, waited in run["batches"]:
            watch.add(TimedBatch(kind, size, seconds, waited))
            steps += closes
            if closes and (steps == 1 or steps % LOOK_EVERY == 0):
                assert watch.look(card) is None, (run["task"], steps)
