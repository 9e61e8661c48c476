"""A position in the run -> the batch of a concept: noise, prompts and how far to denoise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from library.data.batch import Batch
from library.data.builder import Draw
from library.data.concepts import DYNAMIC_STEP, Concept
from library.data.loader import Builder
from library.data.plan import Position
from library.latent_space import LatentSpace
from library.randomness import keyed_random

if TYPE_CHECKING:
    import torch

MOST_SAMPLES = 1 << 20  # of a batch, so that samples of all batches have numbers of their own


@dataclass
class ConceptBatch(Batch):
    """A batch without pictures. `tokens` and `text` have four rows, those of `Concept.texts`; everything else
    has a row for each sample.

    concept: what is taught.
    denoised: how many steps of denoising the sample is behind noise, at least 1.
    """

    concept: Concept = field(kw_only=True)
    denoised: int = field(kw_only=True)


@dataclass
class ConceptBuilder(Builder):
    """Builds batches of concepts, each of which comes up equally often.

    tokenize: captions -> token tensors.
    draw: a sample's noise.
    steps: of the whole way of denoising.
    text: the text encoders' outputs by prompt, each tensor of one row; nothing is tokenized then.
    """

    concepts: Sequence[Concept]
    tokenize: Callable[[list[str]], tuple[torch.Tensor, ...]]
    draw: Draw
    seed: int
    latent_space: LatentSpace = field(kw_only=True)
    steps: int = field(kw_only=True)
    text: Mapping[str, Mapping[str, torch.Tensor]] | None = None
    rank: int = 0
    processes: int = 1

    def build(self, position: Position) -> ConceptBatch:
        import torch

        concept = self._concept(position)
        random = keyed_random(self.seed, "concept", position.epoch, position.batch)
        width, height = _size(concept, random)
        sizes = _sizes(concept, width, height, random)
        denoised, count = random.randrange(1, self.steps), concept.batch_size
        first = position.batch * MOST_SAMPLES + self.rank * count
        shape = self.latent_space.shape(width, height)
        draws = [self.draw(position.epoch, first + number, shape) for number in range(count)]
        return ConceptBatch(
            pixels=None,
            latents=None,
            masks=None,
            tokens=() if self.text is not None else self.tokenize(list(concept.texts)),
            text=None if self.text is None else self._cached(concept),
            captions=list(concept.texts),
            sizes=torch.tensor([sizes] * count),
            weights=torch.full((count,), concept.weight),
            divisor=count,
            noise=torch.stack([draw.noise for draw in draws]),
            u=torch.zeros(count),
            posterior=None,
            network_multiplier=concept.multiplier,
            attributes=[{}] * count,
            position=position,
            names=[concept.target] * count,
            concept=concept,
            denoised=denoised,
        )

    def _concept(self, position: Position) -> Concept:
        """Each round is a shuffle of its own."""
        turn, place = divmod(position.batch, len(self.concepts))
        return self.concepts[order_of(len(self.concepts), self.seed, position.epoch, turn)[place]]

    def _cached(self, concept: Concept) -> dict[str, torch.Tensor]:
        import torch

        assert self.text is not None
        rows = [self.text[prompt] for prompt in concept.texts]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def order_of(concepts: int, seed: int, epoch: int, turn: int) -> list[int]:
    """The order in which an epoch's round goes through concepts."""
    order = list(range(concepts))
    keyed_random(seed, "order of concepts", epoch, turn).shuffle(order)
    return order


def _size(concept: Concept, random: Random) -> tuple[int, int]:
    """Width and height, with dynamic_resolution each a multiple of 64 between half of it and the whole."""
    width, height = concept.resolution
    if not concept.dynamic_resolution:
        return width, height
    least = -(-(width // 2) // DYNAMIC_STEP)
    sides = [DYNAMIC_STEP * n for n in range(least, width // DYNAMIC_STEP + 1)]
    height = random.choice(sides)
    return random.choice(sides), height


def _sizes(concept: Concept, width: int, height: int, random: Random) -> tuple[int, ...]:
    """What models with size conditioning are told: with dynamic_crops of a crop out of up to three times the
    size.
    """
    if not concept.dynamic_crops:
        return height, width, 0, 0, height, width
    larger = random.uniform(1, 3)
    tall, wide = int(height * larger), int(width * larger)
    return tall, wide, random.randint(0, tall - height), random.randint(0, wide - width), height, width
