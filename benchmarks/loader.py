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
    noise that every sample needs.
    """
    data = _data(folder / "loader")
    for side in (8, 64):
        for draws in (True, False):
            _measure(data, side, draws)


def _measure(data, side: int, draws: bool) -> None:
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
        latents=ReadyLatents(torch.zeros(4, side, side)),
    )
    course = Course(data.batches_per_epoch(1))

    def epoch(number: int) -> float:
        steps = course.steps_per_epoch
        return seconds(
            lambda: list(make_loader(builder, course.positions(number * steps, number * steps + steps)))
        )

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
