"""kill -9 at random moments while two processes cache the latents of one folder: nothing torn may be left
under a final name, and the next run has to go on. Linux and macOS only.

  python benchmarks/soak_caching.py [kills] [pictures]
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import tempfile
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# All that the processes need is imported before they are forked: it would take them longer than the work.
import cv2
import numpy as np
import torch
from torch import distributed

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import say  # noqa: E402
from library.data.caches.checks import ABSENT, Wanted, check_entry  # noqa: E402
from library.data.caches.latent_cache import LatentCache, cache_latents  # noqa: E402
from library.data.caches.latent_files import LatentFiles, pictures_of  # noqa: E402
from library.data.training_data import TrainingData  # noqa: E402
from library.latent_space import LatentSpace  # noqa: E402
from library.options.data import DataOptions  # noqa: E402
from library.sharing import Sharing  # noqa: E402

PROCESSES = 2
FILES = LatentFiles("_sd", "a VAE", "float32")
LATENTS = LatentSpace(4, 8, 8)
FORK = multiprocessing.get_context("fork")  # a new Python would take seconds to start


def main() -> None:
    kills, pictures = map(int, (sys.argv[1:] + ["50", "400"][len(sys.argv) - 1 :])[:2])
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), pictures)
        soak.run(kills)
    say(
        "soak_caching",
        kills=soak.kills,
        pictures=pictures,
        entries_looked_at=soak.looked_at,
        temporary_files_left_by_kills=soak.leftovers,
        runs_that_finished=soak.finished,
    )


@dataclass
class Soak:
    """One soak test; every check is an assertion. duration: of the latest run, in seconds."""

    folder: Path
    pictures: int
    kills: int = 0
    finished: int = 0
    looked_at: int = 0
    leftovers: int = 0
    duration: float = 0.0
    wanted: list[Wanted] = field(init=False)

    def __post_init__(self) -> None:
        self.data = _make_data(self.folder / "train", self.pictures)
        self.wanted = FILES.wanted(pictures_of(self.data.records)[0], LATENTS)

    def run(self, kills: int) -> None:
        """Kills that many runs at work; then one goes to its end."""
        rng = random.Random(0)
        self._go_on(None)
        duration = self.duration
        self._remove_entries()
        while self.kills < kills:
            before = self._entries()
            if self._go_on(rng.uniform(0, duration)):
                self.kills += 1
                self._check(before)
            else:
                self.finished += 1
                self._remove_entries()
        missing = self.pictures - len(self._entries())
        assert self._go_on(None) is False
        encoded = [int((self.folder / f"encoded{rank}").read_text()) for rank in range(PROCESSES)]
        assert sum(encoded) == missing, "only what is missing is made, and each of it once"
        self._check_result()

    def _go_on(self, kill_after: float | None) -> bool:
        """One run; whether it was killed before its end."""
        store = tempfile.mktemp(dir=self.folder)
        started = [FORK.Event() for _ in range(PROCESSES)]
        runs = [
            FORK.Process(target=_run_process, args=(self.folder, self.data, store, rank, started[rank]))
            for rank in range(PROCESSES)
        ]
        for process in runs:
            process.start()
        assert all(event.wait(120) for event in started)
        start = time.perf_counter()
        if kill_after is not None:
            time.sleep(kill_after)
        was_working = kill_after is not None and any(process.is_alive() for process in runs)
        for process in runs:
            if was_working:
                process.kill()
            process.join(120)
        self.duration = time.perf_counter() - start
        if not was_working and any(process.exitcode for process in runs):
            raise AssertionError("\n".join(path.read_text() for path in self.folder.glob("log*")))
        return was_working

    def _entries(self) -> dict[Path, tuple[int, int]]:
        """What tells a file from another in its place, by entry."""
        stats = {path: path.stat() for path in (self.folder / "train").rglob("*.npz")}
        return {path: (status.st_ino, status.st_mtime_ns) for path, status in stats.items()}

    def _check(self, before: dict[Path, tuple[int, int]]) -> None:
        entries = self._entries()
        assert before.items() <= entries.items(), "what was there is not made again"
        checks = [check_entry(wanted) for wanted in self.wanted]
        assert {check.reason for check in checks} <= {None, ABSENT}, "no torn entry has a final name"
        assert sum(check.is_hit for check in checks) == len(entries)
        self.looked_at += len(entries)
        self.leftovers += len(list((self.folder / "train").rglob("*.part")))

    def _check_result(self) -> None:
        in_memory = cache_latents(self.data, _encode, latent_space=LATENTS, batch_size=1, progress=False)
        paths = [wanted.path for wanted in self.wanted]
        on_disk = LatentCache(paths, LATENTS)
        for index in range(self.pictures):
            assert np.array_equal(on_disk[index, False], in_memory[index, False])
        assert not list((self.folder / "train").rglob("*.part")), "what killed runs left is removed"

    def _remove_entries(self) -> None:
        for path in (self.folder / "train").rglob("*.npz"):
            path.unlink()


def _run_process(folder: Path, data: TrainingData, store: str, rank: int, started: Any) -> None:
    """One of the processes of a run. What it prints goes to a file: that the other was killed is an error."""
    with (folder / f"log{rank}").open("w") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            _cache(folder, data, store, rank, started)
        except Exception:
            traceback.print_exc()
            sys.exit(1)


def _cache(folder: Path, data: TrainingData, store: str, rank: int, started: Any) -> None:
    torch.set_num_threads(1)  # neither library's threads survive a fork
    cv2.setNumThreads(0)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=PROCESSES)
    encoded = 0

    def gather(value: Any) -> list[Any]:
        found = [None] * PROCESSES
        distributed.all_gather_object(found, value)
        return found

    def encode(pixels: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        nonlocal encoded
        encoded += len(pixels)
        return _encode(pixels, noise)

    started.set()
    sharing = Sharing(rank, PROCESSES, gather)
    cache_latents(
        data, encode, latent_space=LATENTS, batch_size=2, disk=FILES, sharing=sharing, progress=False
    )
    (folder / f"encoded{rank}").write_text(str(encoded))
    distributed.destroy_process_group()


def _encode(pixels, noise):
    """Stands for a VAE; its latents tell whether they belong to the image."""
    return noise + pixels[:, :1, ::8, ::8]


def _make_data(folder: Path, count: int) -> TrainingData:
    from PIL import Image

    rng = np.random.default_rng(0)
    (folder / "1_x").mkdir(parents=True)
    for number in range(count):
        pixels = rng.integers(0, 256, (64, 64 + 64 * (number % 2), 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "1_x" / f"{number:05d}.bmp")
    options = DataOptions(
        train_data_dir=folder, resolution=((64, 64),), enable_bucket=True, min_bucket_reso=64
    )
    return TrainingData.scan(options, latent_space=LATENTS)


if __name__ == "__main__":
    main()
