"""What becomes of runs, with trainers that only count: order, failures, stops, pauses, and kills."""

from __future__ import annotations

import errno
import json
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import queue_stubs
from queue_stubs import add_stub, expected, kill, run_stubs, start_runner, states, trainers

from library.options.queue_tools import RunnerOptions
from library.problems import UserError
from library.queue import changing, launching
from library.queue.folder import Queue
from library.queue.running import Runner
from library.queue.telling import left, lines


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "queue")


def test_runs_are_trained_in_order_and_one_that_fails_stops_no_other(queue: Queue) -> None:
    add_stub(queue, "a")
    add_stub(queue, "b", ends="wrong")
    add_stub(queue, "c", after=[2])
    add_stub(queue, "d", after=[1])
    add_stub(queue, "e")
    changing.move(queue, [5], last=False)

    code, said = run_stubs(queue)

    assert code == 0
    started = [line.split()[2] for line in said.splitlines() if "started" in line]
    assert started == ["(e):", "(a):", "(b):", "(d):"]
    assert states(queue) == {1: "done", 2: "failed", 3: "waiting", 4: "done", 5: "done"}
    assert (queue.folder / "out" / "e.result").read_text() == expected(3)
    assert not list((queue.folder / "out").glob("*-state"))
    assert "   2  failed   b  --learning_rate: is wrong in b; lower it" in [*lines(queue)]
    assert any(line.startswith("   3  waiting  c  after 2, takes about 0 min 0") for line in lines(queue))
    assert sum("started" in line for line in (queue.folder / "out" / "b.starts").open()) == 1


def test_what_dies_is_tried_again_while_it_gets_on(queue: Queue) -> None:
    add_stub(queue, "a", ends="broken", at=2)

    _, said = run_stubs(queue, tries=3)

    # The first death comes after steps; then it dies twice more at the same one.
    assert [line for line in said.splitlines() if "started" in line] == [
        "run 1 (a): started",
        *["run 1 (a): started, goes on after step 2"] * 2,
    ]
    assert states(queue) == {1: "failed"}
    reason = f"the trainer died (exit code 1); see {queue.run_folder(1) / 'log.txt'}"
    assert [*lines(queue)] == [f"   1  failed   a  {reason}"]

    changing.retry(queue, 1)
    assert [*lines(queue)] == ["   1  waiting  a  time unknown"]
    options = queue.run_folder(1) / "options.toml"
    options.write_text(options.read_text().replace("broken", "healed"))
    options.write_text(options.read_text().replace("at = 2", "at = 9"))
    run_stubs(queue)
    assert (queue.folder / "out" / "a.result").read_text() == expected(3)


def test_a_full_disk_and_three_runs_that_fail_at_once_pause_the_queue(queue: Queue) -> None:
    add_stub(queue, "a", ends="full")
    add_stub(queue, "b")
    code, said = run_stubs(queue)
    assert code == 3
    assert said.splitlines()[-1] == "paused: run 1: somewhere: No space left on device; make room"
    assert states(queue) == {1: "waiting", 2: "waiting"}

    changing.remove(queue, 1)
    for name in "cdef":
        add_stub(queue, name, ends="wrong")
    code, said = run_stubs(queue)
    assert code == 3
    assert "paused: 3 runs in a row failed at once, the last: --learning_rate: is wrong in e" in said
    assert states(queue) == {2: "done", 3: "failed", 4: "failed", 5: "failed", 6: "waiting"}
    assert [*lines(queue)][-1] == "runs start again with: run"


def test_a_run_is_stopped_at_once_or_at_its_next_step_and_goes_on_when_tried_again(queue: Queue) -> None:
    add_stub(queue, "a", steps=60, pause=0.05)
    add_stub(queue, "b")
    assert changing.stop(queue, 2) == "stopped"
    runner = start_runner(queue)
    wait_for(lambda: list((queue.folder / "out").glob("a-step*-state")))
    assert changing.stop(queue, 1) == "will save its state and stop"
    runner.communicate(timeout=60)
    assert states(queue) == {1: "stopped", 2: "stopped"}

    changing.retry(queue, 1)
    _, said = run_stubs(queue)
    assert "goes on after step" in said
    assert states(queue) == {1: "done", 2: "stopped"}
    assert (queue.folder / "out" / "a.result").read_text() == expected(60)


def test_a_stop_that_comes_between_two_tries_counts(queue: Queue) -> None:
    number = add_stub(queue, "a")
    queue.stop_file(number).touch()  # as after a run was read as running, and died just then
    run_stubs(queue)
    assert states(queue) == {1: "stopped"}


def test_a_paused_queue_finishes_what_runs_and_waits(queue: Queue) -> None:
    add_stub(queue, "a", steps=20, pause=0.05)
    add_stub(queue, "b")
    runner = start_runner(queue)
    wait_for(lambda: states(queue)[1] == "running")
    queue.pause("by its user", by_user=True)
    wait_for(lambda: states(queue)[1] == "done")
    time.sleep(1)
    assert states(queue)[2] == "waiting" and runner.poll() is None
    queue.unpause()
    runner.communicate(timeout=60)
    assert runner.returncode == 0 and states(queue)[2] == "done"


def test_ctrl_c_lets_runs_save_and_wait(queue: Queue) -> None:
    add_stub(queue, "a", steps=100, pause=0.05)
    runner = start_runner(queue)
    wait_for(lambda: list((queue.folder / "out").glob("a-step*-state")))
    runner.send_signal(signal.SIGINT)
    said, _ = runner.communicate(timeout=60)
    assert runner.returncode == 130
    assert said.splitlines()[-1] == "run 1: will go on"
    assert states(queue) == {1: "waiting"} and not trainers(queue)


def test_a_second_runner_is_refused_where_all_slots_are_used(queue: Queue) -> None:
    add_stub(queue, "a", steps=100, pause=0.05)
    first = start_runner(queue)
    wait_for(lambda: states(queue)[1] == "running")
    code, said = run_stubs(queue)
    assert code == 2
    assert "another runner uses all slots of this queue; wait for it, or give more --slots" in said
    code, _ = run_stubs(queue, slots=2)  # it takes the other slot and finds nothing to do
    assert code == 0
    assert states(queue)[1] == "running" and len(trainers(queue)) == 1
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)


def test_a_new_runner_waits_for_the_trainer_of_one_that_is_gone(queue: Queue) -> None:
    add_stub(queue, "a", steps=3, pause=3)
    add_stub(queue, "b")
    runner = start_runner(queue)
    wait_for(lambda: (queue.folder / "out" / "a.starts").exists())
    kill(runner)
    _, said = run_stubs(queue)  # the trainer is in the middle of a step
    assert said.splitlines()[:2] == ["run 1: will go on", "run 1 (a): started, goes on after step 1"]
    assert states(queue) == {1: "done", 2: "done"}


def test_slots_run_side_by_side(queue: Queue) -> None:
    for name in "abc":
        add_stub(queue, name, steps=20, pause=0.05)
    runner = start_runner(queue, slots=2)
    wait_for(lambda: list(states(queue).values()).count("running") == 2)
    runner.communicate(timeout=60)
    assert set(states(queue).values()) == {"done"}


def test_each_slot_has_a_gpu_of_its_own(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "_count_gpus", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr(launching, "ROOT", Path(queue_stubs.__file__).parent)
    with pytest.raises(UserError, match="--slots: is 3, a GPU each, but there are 2 here; ask for fewer"):
        launching.slots_of(3)
    for name in "abc":
        add_stub(queue, name, steps=20, pause=0.05)
    added = replace(queue.added(3), processes=4)
    queue.write_added(3, added)
    runner = Runner(queue, RunnerOptions(), launching.slots_of(None))
    assert runner.run() == 0
    used = [(queue.folder / "out" / f"{name}.starts").read_text() for name in "ab"]
    assert used == ["started on 3\n", "started on 5\n"]
    assert [*left(queue, runner)] == ["run 3 needs 4 GPUs, but this runner has 2"]


def test_a_run_whose_file_is_broken_fails_alone(queue: Queue) -> None:
    for name in "abc":
        add_stub(queue, name)
    (queue.run_folder(1) / "run.json").write_text("{")
    other = json.loads((queue.run_folder(2) / "run.json").read_text()) | {"script": "../x.py"}
    (queue.run_folder(2) / "run.json").write_text(json.dumps(other))
    code, _ = run_stubs(queue)
    assert code == 0
    assert states(queue) == {1: "failed", 2: "failed", 3: "done"}
    assert "script cannot be '../x.py'" in queue.record(2).reason


def test_a_queue_that_cannot_be_written_pauses_and_loses_nothing(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(path: Path, value: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    add_stub(queue, "a")
    with monkeypatch.context() as full:
        full.setattr("library.queue.folder.write_json", write)
        assert Runner(queue, RunnerOptions(), [""]).run() == 3
    assert "paused: run 1: could not be started (No space left on device)" in capsys.readouterr().out
    assert states(queue) == {1: "waiting"}
    run_stubs(queue)
    assert states(queue) == {1: "done"}


def test_kills_of_runners_and_trainers_lose_no_run(queue: Queue) -> None:
    check_kills(queue, kills=9, count=6, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_many_kills_of_runners_and_trainers_lose_no_run(queue: Queue, seed: int) -> None:
    check_kills(queue, kills=60, count=20, seed=seed)


def check_kills(queue: Queue, *, kills: int, count: int, seed: int) -> None:
    """Kill runners, trainers and both in turn at random moments, and compare the end with what it must be."""
    rng, steps = random.Random(seed), 30
    bad = {2: "wrong", count // 2: "broken", count - 1: "wrong"}
    for number in range(1, count + 1):
        more = {"ends": bad[number], "at": 5} if number in bad else {}
        add_stub(queue, f"run{number}", steps=steps, pause=0.01, **more)
    runner = start_runner(queue, tries=6)
    for kind in range(kills):
        time.sleep(rng.uniform(0.2, 0.8))
        whom = ("runner", "trainer", "both")[kind % 3]
        if whom != "trainer":
            kill(runner)
        if whom != "runner":
            for trainer in trainers(queue):
                kill(trainer)
        if runner.poll() is not None:
            runner = start_runner(queue, tries=6)
    runner.communicate(timeout=200)

    assert runner.returncode == 0
    assert not (queue.folder / "out" / "violations").exists()
    assert states(queue) == {number: "failed" if number in bad else "done" for number in range(1, count + 1)}
    for number in set(states(queue)) - set(bad):
        assert (queue.folder / "out" / f"run{number}.result").read_text() == expected(steps)
    for number in bad:
        assert not (queue.folder / "out" / f"run{number}.result").exists()
    left = {path.name.split("-")[0] for path in (queue.folder / "out").glob("*-state")}
    assert left <= {f"run{number}" for number in bad}  # what failed can be tried again from there


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
