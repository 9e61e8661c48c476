"""How fast the loader makes batches of cached latents with shuffled captions: what a GPU may wait for."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import in_turns, say, seconds  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

PICTURES, TAGS, BATCH = 2000, 30, 16


@dataclass
class ReadyLatents:
    """Stands for a LatentCache: one latent for all."""

    latent: torch.Tensor
    bad = frozenset()

    def __getitem__(self, key: tuple[int, bool]) -> torch.Tensor:
        return self.latent


def main(folder: Path) -> None:
    """Samples/s in this process, for small latents and for those of 512 x 512 pictures, with and without the
    noise that every sample needs; and those of 512 x 512 pictures from files against from memory.
    """
    import torch

    data = _data(folder / "loader")
    for side in (8, 64):
        for draws in (True, False):
            _measure(data, side, draws)
    for keeps in (False, True):
        _measure_files(data, folder, keeps, torch.zeros(4, 64, 64))


def _measure(data, side: int, draws: bool) -> None:
    import torch

    epoch = _epochs(data, side, draws, ReadyLatents(torch.zeros(4, side, side)))

    def randoms() -> float:
        """The bare draws of as much noise."""
        return seconds(lambda: [torch.randn(4, side, side) for _ in range(PICTURES)])

    epoch(0)
    ratio, ours, bare = in_turns(lambda: epoch(1), randoms)
    say(
        "loader",
        latent=f"{side}x{side}",
        noise=draws,
        samples_per_second=PICTURES / ours,
        bare_randn_samples_per_second=PICTURES / bare,
        target_samples_per_second=10_000,
    )


def _measure_files(data, folder: Path, keeps: bool, latent: torch.Tensor) -> None:
    """The second epoch from cache files; keeps: with room in memory for all that was read in the first."""
    from library.data.caches.entries import CacheEntry, write_entries
    from library.data.caches.kept import Kept
    from library.data.caches.latent_cache import LatentCache
    from library.latent_space import LatentSpace

    arrays = {"latents": latent.numpy(), "latents_flipped": latent.numpy()}
    paths = [folder / f"{number}.npz" for number in range(PICTURES)]
    sums = write_entries(CacheEntry(path, arrays, {}) for path in paths)
    space = LatentSpace(4, 8, 8)
    kept = Kept(2 * PICTURES * latent.nbytes) if keeps else None
    from_files = _epochs(data, 64, True, LatentCache(paths, space, sums=sums, kept=kept))
    own = [{name: array.copy() for name, array in arrays.items()} for _ in paths]  # as real ones have
    in_memory = _epochs(data, 64, True, LatentCache(own, space))
    for number in range(3):  # mirrored or not, by chance: a few epochs see nearly all of them
        from_files(number)
    ratio, ours, theirs = in_turns(lambda: in_memory(1), lambda: from_files(1))
    say(
        "loader from files",
        kept=keeps,
        samples_per_second=PICTURES / theirs,
        in_memory_samples_per_second=PICTURES / ours,
        rate_of_memory=ratio,
        target_rate=0.95,
    )


def _epochs(data, side: int, draws: bool, latents) -> Callable[[int], float]:
    """A function that loads an epoch by its number and returns the seconds it took."""
    import torch

    from library.data.builder import BatchBuilder, SampleDraws
    from library.data.loader import make_loader
    from library.data.plan import Course
    from library.latent_space import LatentSpace
    from library.models.text import Tokenizer
    from library.training.diffusion.noise import NoiseDraw

    noise = NoiseDraw(1, encodes=False)
    still = SampleDraws(torch.zeros(4, side, side), 0.5, None)
    draw = (lambda epoch, sample, _: noise(epoch, sample, (4, side, side))) if draws else lambda *_: still
    builder = BatchBuilder(
        data,
        Tokenizer(pads=(49407,)),
        draw,
        1,
        # A picture of 64 pixels gives latents of any side here.
        latent_space=LatentSpace(4, 64 // side, 8),
        latents=latents,
    )
    course = Course(data.batches_per_epoch(1))

    def epoch(number: int) -> float:
        steps = course.steps_per_epoch
        return seconds(
            lambda: list(make_loader(builder, course.positions(number * steps, number * steps + steps)))
        )

    return epoch


def _data(folder: Path):
    from PIL import Image

    from library.data.training_data import TrainingData
    from library.latent_space import LatentSpace
    from library.options.data import DataOptions

    rng = random.Random(0)
    words = [f"tag number {i}" for i in range(1000)]
    pictures = folder / "1_x"
    pictures.mkdir(parents=True)
    for number in range(PICTURES):
        Image.new("RGB", (64, 64)).save(pictures / f"{number}.png", compress_level=0)
        (pictures / f"{number}.txt").write_text(", ".join(rng.sample(words, TAGS)))
    options = DataOptions(
        train_data_dir=folder,
        resolution=((64, 64),),
        train_batch_size=BATCH,
        caption_extension=".txt",
        shuffle_caption=True,
        keep_tokens=1,
        flip_aug=True,
    )
    return TrainingData.scan(options, latent_space=LatentSpace(4, 8, 8))


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
