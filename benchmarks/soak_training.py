"""SIGTERM, SIGINT and SIGKILL at random moments of real training runs, and a full disk: every run has to end
in time and resume to the same weights, and no save may be lost. Linux only; the full disk needs root.

  python benchmarks/soak_training.py [signals] [kills] [seed]
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

# First: it imports all that the processes need before they are forked.
from benchmarks.disturbing import FORK, Process, Run, make_pictures, resume_words, weights

# ruff: isort: split
import torch

import networks.lora  # noqa: F401
import train_db
import train_network
from benchmarks.measuring import say
from library import files
from library.files import remove_leftovers, restore_folder, whole_folder
from library.models.saving import Saving
from library.models.weights import load_tensors, save_objects, save_tensors
from library.training.position import read_state_info
from tools.make_tiny_model import tiny_model

LIMIT = 10.0  # seconds from a signal to the end, on an idle machine
STEPS = 10
SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130}


def main() -> None:
    words = sys.argv[1:]
    signals, kills, seed = (int(word) for word in (words + ["50", "100", "0"][len(words) :]))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = make_runs(folder)
        soak = SignalSoak(runs, random.Random(seed))
        soak.run(signals)
        killed = kill_savers(folder / "saves", kills, random.Random(seed))
        full = fill_disk(runs[0], folder / "small") if os.geteuid() == 0 else None
    say(
        "soak_training",
        signals=soak.sent,
        runs_killed=soak.killed,
        slowest_end_s=round(soak.slowest, 2),
        load=round(os.getloadavg()[0] / (os.cpu_count() or 1), 1),
        ends=dict(sorted(soak.ends.items())),
        runs_that_finished_with_equal_weights=soak.finished,
        kills_of_savers=kills,
        saves_put_back=killed,
        saves_without_room=full,
    )


def make_runs(folder: Path) -> list[Run]:
    """A LoRA with latents cached on disk, previews and averages, and a whole model with accumulation."""
    model, prompts = folder / "model.safetensors", folder / "prompts.txt"
    tiny_model("sd1").save(model, Saving("safetensors"))
    prompts.write_text("one --w 64 --h 64 --s 3\ntwo --w 64 --h 64 --s 3\n")
    common = ("--pretrained_model_name_or_path", model, "--resolution", 64, "--train_batch_size", 2)
    common += ("--seed", 3, "--output_name", "x", "--max_train_steps", STEPS)
    common += ("--max_data_loader_n_workers", 0)
    common += ("--cache_latents", "--flip_aug", "--save_state", "--learning_rate", 1e-3)
    lora = ("--network_module", "networks.lora", "--network_dropout", 0.1, "--save_every_n_steps", 2)
    lora += ("--cache_latents_to_disk", "--sample_prompts", prompts, "--sample_every_n_steps", 3)
    lora += ("--use_ema", "--scale_weight_norms", 0.1, "--validation_split", 0.2)
    lora += ("--network_args", "loraplus_lr_ratio=4", "mid_lr_weight=0.5", "conv_dim=2")
    whole = ("--use_safetensors", "--gradient_accumulation_steps", 3, "--save_every_n_epochs", 2)
    runs = []
    for name, main, script, own in (
        ("lora", train_network.main, "train_network.py", lora),
        ("model", train_db.main, "train_db.py", whole),
    ):
        pictures = make_pictures(folder / f"pictures_{name}")
        words = tuple(map(str, (*common, *own, "--train_data_dir", pictures)))
        runs.append(Run(name, main, script, words, pictures))
    return runs


@dataclass
class SignalSoak:
    """Runs that are stopped at random moments and resumed until they finish.

    news: the share of runs that start a new Python, which gets signals during its imports too.
    sent: signals that a run got, without kills.
    killed: how many runs got SIGKILL.
    finished: how many runs ended with the right weights.
    slowest: the most seconds from a signal to the end.
    ends: how runs ended, counted.
    """

    runs: list[Run]
    rng: random.Random
    news: float = 0.125
    sent: int = 0
    killed: int = 0
    finished: int = 0
    slowest: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)

    def run(self, signals: int) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            expected, durations = {}, {}
            for run in self.runs:
                start = time.perf_counter()
                process = Process(run, folder / run.name)
                assert process.wait(300) == 0, process.said()
                durations[run.name] = time.perf_counter() - start
                expected[run.name] = weights(folder / run.name / "x.safetensors")
            number = 0
            while self.sent < signals:
                run, number = self.runs[number % len(self.runs)], number + 1
                out = folder / f"disturbed{number}"
                for path in run.pictures.rglob("*.npz"):
                    path.unlink()
                self._disturb(run, out, durations[run.name])
                assert weights(out / "x.safetensors") == expected[run.name], f"{run.name}: other weights"
                assert not list(out.glob(".*.part")) and not list(out.glob(".*.old"))
                self.finished += 1
                print(f"{self.sent} signals, {self.killed} kills: {dict(self.ends)}", file=sys.stderr)

    def _disturb(self, run: Run, out: Path, duration: float) -> None:
        """One run, resumed until it finishes, however often it is stopped."""
        resume: tuple[object, ...] = ()
        while True:
            is_new = self.rng.random() < self.news
            process = Process(run, out, *resume, is_new=is_new)
            number = self.rng.choices([*SIGNALS, signal.SIGKILL], (2, 2, 1))[0]
            time.sleep(self.rng.uniform(0, (duration + 6) if is_new else duration * 1.2))
            if not process.send(number):
                assert process.wait(60) == 0, process.said()
                return
            start = time.perf_counter()
            code = process.wait(60)
            took = time.perf_counter() - start
            if number == signal.SIGKILL:
                self.killed += 1
            else:
                self.sent += 1
                self.slowest = max(self.slowest, took)
                self._check(process, code, number, took)
            if code == 0:
                return
            resume = resume_words(out, process.said()) or resume

    def _check(self, process: Process, code: int, number: signal.Signals, took: float) -> None:
        said = process.said()
        limit = LIMIT * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        assert took < limit, f"took {took:.1f} s after signal {number}\n{said}"
        if code == 0:
            end = "finished"
        elif code == -number:
            end = "at once"  # Python itself, before the program handled signals
            assert said == "" or (process.is_new and said.endswith("KeyboardInterrupt\n")), said
        else:
            assert code == SIGNALS[number], f"exit code {code}\n{said}"
            ends = ("go on with --resume", "latents are cached", "nothing to save")
            found = [end for end in ends if end in said]
            assert found and "Traceback" not in said, f"not the right words\n{said}"
            end = found[0]
        self.ends[end] += 1


# Processes that only save, over and over, under the same names.


def kill_savers(folder: Path, kills: int, rng: random.Random) -> int:
    """Kill that many savers. Returns how often a state was moved aside and had to be put back."""
    folder.mkdir()
    put_back = 0
    for _ in range(kills):
        reader, writer = os.pipe()
        saver = FORK.Process(target=_save_forever, args=(folder, version_in(folder) + 1, writer))
        saver.start()
        os.close(writer)
        os.read(reader, 1)
        time.sleep(rng.uniform(0, 0.5))
        saver.kill()
        saver.join()
        done = b""
        while piece := os.read(reader, 2**16):
            done += piece
        os.close(reader)
        saved = [int(line) for line in done.split(b"\n")[:-1] if line]
        put_back += bool(list(folder.glob(".*.old"))) and not (folder / "x-state").exists()
        check_saves(folder, max(saved, default=0))
    assert version_in(folder) > kills / 2, "most of them were killed while they saved"
    return put_back


def version_in(folder: Path) -> int:
    """The version of the state in a folder; 0 when none was ever whole."""
    state = folder / "x-state"
    restore_folder(state)
    return int(load_tensors(state / "model.safetensors")["x"][0]) if state.exists() else 0


def check_saves(folder: Path, saved: int) -> None:
    """What was saved is whole, of one moment, and not older than version `saved`."""
    version = version_in(folder)
    assert version >= saved, f"state {version} after {saved}"
    if version == 0:
        return
    loaded = torch.load(folder / "x-state" / "optimizer.bin", weights_only=True)
    assert int(loaded["x"][0]) == int(loaded["x"][-1]) == version
    file = load_tensors(folder / "x.safetensors")["x"]
    assert int(file[0]) == int(file[-1]) >= saved
    remove_leftovers(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["x-state", "x.safetensors"]


def _save_forever(folder: Path, version: int, writer: int) -> None:
    rename = files._rename

    def rename_slowly(source: Path, target: Path) -> None:  # as on a network drive, so that kills hit it too
        time.sleep(0.002)
        rename(source, target)
        time.sleep(0.002)

    files._rename = rename_slowly
    os.write(writer, b"\n")
    while True:
        tensors = {"x": torch.full((200_000,), float(version))}
        save_tensors(folder / "x.safetensors", tensors)
        with whole_folder(folder / "x-state") as state:
            save_tensors(state / "model.safetensors", tensors)
            save_objects(state / "optimizer.bin", tensors)
        os.write(writer, b"%d\n" % version)
        version += 1


# A disk that is full for a while.


def fill_disk(run: Run, folder: Path) -> int:
    """Fill a run's disk between two of its saves. Returns how many saves found no room."""
    with small_disk(folder, "64m") as small:
        expected = Process(run, folder.parent / "unfilled")
        assert expected.wait(300) == 0, expected.said()
        process = Process(run, small)
        while not (small / "x-step00000002-state").exists():
            assert process._forked.is_alive(), process.said()
            time.sleep(0.005)
        before = weights(small / "x-step00000002.safetensors")
        with suppress(OSError), (small / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        while (count := process.said().count("; training goes on")) == 0:
            assert process._forked.is_alive(), process.said()
            time.sleep(0.005)
        (small / "filler").unlink()
        assert process.wait(300) == 0, process.said()
        assert weights(small / "x-step00000002.safetensors") == before
        read_state_info(small / "x-step00000002-state")
        assert weights(small / "x.safetensors") == weights(folder.parent / "unfilled" / "x.safetensors")
        return max(count, process.said().count("; training goes on"))


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


if __name__ == "__main__":
    main()
