"""The batch builder: a position in a run -> this rank's batch.

A batch is a function of its position, so nothing depends on which process or thread builds it, or in which
order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from library.data.batch import LATENT_CHANNELS, PIXELS_PER_LATENT, Batch
from library.data.captions import kept_caption, sample_caption
from library.data.pictures.masks import latent_mask
from library.data.plan import GlobalBatch, Position, plan_epoch
from library.data.scan.records import Record
from library.data.training_data import TrainingData
from library.data.views import View, centre_view, make_view, to_pixels
from library.problems import UserError, warn

if TYPE_CHECKING:
    import torch

    from library.data.caches.latent_cache import LatentCache
    from library.data.caches.text_cache import TextCache

Tokenize = Callable[[list[str]], "tuple[torch.Tensor, ...]"]


class SampleDraws(Protocol):
    """The random numbers of one sample, as `Batch` has them. u: uniform in [0, 1)."""

    noise: torch.Tensor
    u: float
    posterior: torch.Tensor | None
    disturbance: torch.Tensor | None
    offset: tuple[torch.Tensor, torch.Tensor] | None


Draw = Callable[[int, int, tuple[int, int, int]], SampleDraws]

# Pixels, uint8 (h, w, 3), or a latent, (4, h/8, w/8); and the mask, float32 (h, w), if it has one.
Picture = tuple[Any, "np.ndarray | None"]


@dataclass
class BatchBuilder:
    """position -> this rank's batch. Holds the plans of the latest epochs, and which images were named as
    unreadable; nothing else changes.

    tokenize: captions -> token tensors, called once per batch. draw: (epoch, sample, latent shape) -> the
    sample's random numbers. Both must be picklable when there are workers.
    total_steps: of the whole run, which token warm-up is a share of.
    latents, text: what is cached; then no image is read, no caption tokenized.
    is_fixed: pictures and captions without any draw, as validation wants them.
    """

    data: TrainingData
    tokenize: Tokenize
    draw: Draw
    seed: int
    total_steps: int = 1
    latents: LatentCache | None = None
    text: TextCache | None = None
    rank: int = 0
    processes: int = 1
    is_fixed: bool = False
    plans: dict[int, list[GlobalBatch]] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)

    def build(self, position: Position) -> Batch:
        """The batch at a position, always the same. Raises UserError when an image cannot be read."""
        import torch

        batch = self._plan(position.epoch)[position.batch]
        samples, real = batch.share(self.rank, self.processes)
        views = [self._view(sample, position.epoch) for sample in samples]
        captions = [self._caption(sample, position) for sample in samples]
        width, height = (side // PIXELS_PER_LATENT for side in batch.size)
        draws = [self.draw(position.epoch, sample, (LATENT_CHANNELS, height, width)) for sample in samples]
        pictures = self._pictures(views)
        weights = [self._weight(view.record) for view in views[:real]] + [0.0] * (len(views) - real)
        return Batch(
            **self._stack(pictures, views, draws),
            **_stack_noise(draws),
            **self._texts(samples, captions),
            captions=captions,
            sizes=torch.tensor([view.sizes() for view in views]),
            weights=torch.tensor([0.0 if p is None else w for p, w in zip(pictures, weights, strict=True)]),
            divisor=len(batch.samples) / self.processes,
            u=torch.tensor([float(draw.u) for draw in draws]),
            network_multiplier=self.data.datasets[batch.dataset].spec.network_multiplier,
            attributes=[view.record.subset.custom_attributes for view in views],
            position=position,
            names=[view.record.image.name for view in views],
        )

    def _plan(self, epoch: int) -> list[GlobalBatch]:
        if epoch not in self.plans:
            self.plans = {kept: plan for kept, plan in self.plans.items() if kept == epoch - 1}
            self.plans[epoch] = plan_epoch(self.data, self.seed, epoch, self.processes)
        return self.plans[epoch]

    def _view(self, sample: int, epoch: int) -> View:
        index = self.data.samples[sample]
        record = self.data.records[index]
        if self.is_fixed:
            return centre_view(record, index=index)
        return make_view(record, index=index, seed=self.seed, epoch=epoch, sample=sample)

    def _caption(self, sample: int, position: Position) -> str:
        record = self.data.records[self.data.samples[sample]]
        if self.is_fixed:
            return kept_caption(record.caption, record.subset)
        return sample_caption(
            record.caption,
            record.subset,
            seed=self.seed,
            epoch=position.epoch,
            sample=sample,
            step=position.step,
            total_steps=self.total_steps,
        )

    def _weight(self, record: Record) -> float:
        return self.data.prior_loss_weight if record.subset.is_reg else 1.0

    def _texts(self, samples: Sequence[int], captions: list[str]) -> dict[str, Any]:
        """Cached outputs of the text encoders, or tokens for them."""
        if self.text is None:
            return {"tokens": self.tokenize(captions), "text": None}
        return {"tokens": (), "text": self.text.outputs([self.data.samples[s] for s in samples], captions)}

    def without_texts(self) -> BatchBuilder:
        """For a worker process: a whole cache does not go there. `with_texts` puts its part in afterwards."""
        return self if self.text is None else replace(self, text=None, tokenize=_nothing)

    def with_texts(self, batch: Batch) -> Batch:
        """A batch of `without_texts`, complete."""
        if self.text is None:
            return batch
        plan = self._plan(batch.position.epoch)[batch.position.batch]
        samples, _ = plan.share(self.rank, self.processes)
        return replace(batch, **self._texts(samples, batch.captions))

    def _pictures(self, views: list[View]) -> list[Picture | None]:
        """Each view's latent or pixels with its mask; None for one that is unreadable and to be skipped."""
        if self.latents is None:
            return [self._load(view) for view in views]
        cached = self.latents
        return [
            None if view.index in cached.bad else (cached[view.index, view.flip], _cached_mask(view, cached))
            for view in views
        ]

    def _load(self, view: View) -> Picture | None:
        try:
            return view.load()
        except UserError as error:
            if not self.data.skips_bad_images:
                raise
            if view.index not in self.skipped:
                self.skipped.add(view.index)
                warn(f"{error}; it is skipped")
            return None

    def _stack(
        self, pictures: list[Picture | None], views: list[View], draws: list[SampleDraws]
    ) -> dict[str, torch.Tensor | None]:
        """The batch's latents or pixels, what to encode these with, and masks. What is skipped is blank."""
        import torch

        width, height = views[0].record.fit.bucket
        masks = _stack_masks([None if picture is None else picture[1] for picture in pictures], views)
        if self.latents is not None:
            blank = torch.zeros(LATENT_CHANNELS, height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT)
            found = [blank if picture is None else picture[0] for picture in pictures]
            return {"latents": torch.stack(found), "pixels": None, "posterior": None, "masks": masks}
        blank = np.zeros((height, width, 3), np.uint8)
        pixels = to_pixels([blank if picture is None else picture[0] for picture in pictures])
        posteriors = [draw.posterior for draw in draws if draw.posterior is not None]
        posterior = torch.stack(posteriors) if posteriors else None
        return {"latents": None, "pixels": pixels, "posterior": posterior, "masks": masks}


def _stack_noise(draws: list[SampleDraws]) -> dict[str, Any]:
    """The batch's noise, and what belongs to it."""
    import torch

    disturbances = [draw.disturbance for draw in draws if draw.disturbance is not None]
    offsets = [draw.offset for draw in draws if draw.offset is not None]
    return {
        "noise": torch.stack([draw.noise for draw in draws]),
        "disturbance": torch.stack(disturbances) if disturbances else None,
        "offset": tuple(map(torch.stack, zip(*offsets, strict=True))) if offsets else None,
    }


def _cached_mask(view: View, latents: LatentCache) -> np.ndarray | None:
    """A conditioning image is read when it is needed; the alpha channel is in the cache."""
    if view.record.hint is not None:
        return view.load_hint_mask()
    return latents.mask(view.index, view.flip) if view.record.subset.alpha_mask else None


def _stack_masks(masks: Sequence[np.ndarray | None], views: list[View]) -> torch.Tensor | None:
    """(b, 1, h/8, w/8); a picture without a mask counts everywhere."""
    import torch

    if all(mask is None for mask in masks):
        return None
    width, height = (side // PIXELS_PER_LATENT for side in views[0].record.fit.bucket)
    small = [
        np.ones((height, width), np.float32) if mask is None else latent_mask(mask, (height, width))
        for mask in masks
    ]
    return torch.from_numpy(np.stack(small))[:, None]


def _nothing(captions: list[str]) -> tuple[torch.Tensor, ...]:
    return ()
