"""The batch builder: a position in a run -> this rank's batch.

A batch is a function of its position, so nothing depends on which process or thread builds it, or in which
order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np

from library.data.batch import Batch, Needs
from library.data.buckets import Size
from library.data.captions import kept_caption, sample_caption
from library.data.loader import Builder
from library.data.pictures.masks import latent_mask
from library.data.plan import GlobalBatch, Position, plan_epoch
from library.data.scan.records import Record
from library.data.training_data import TrainingData
from library.data.views import View, centre_view, make_view, to_hints, to_pixels
from library.latent_space import LatentSpace
from library.problems import UserError, warn

if TYPE_CHECKING:
    import torch

    from library.data.caches.latent_cache import LatentCache
    from library.data.caches.text_cache import TextCache
    from library.data.preservation import Preservation

Tokenize = Callable[[list[str]], "tuple[torch.Tensor, ...]"]


@dataclass(frozen=True)
class SampleDraws:
    """The random numbers of one sample, without the batch dimension; see `Batch` for what each is.

    u: in 0..1, where the timestep lies in the range that is trained.
    """

    noise: torch.Tensor
    u: float
    posterior: torch.Tensor | None
    disturbance: torch.Tensor | None = None
    offset: tuple[torch.Tensor, torch.Tensor] | None = None


class _KeptTexts(TypedDict, total=False):
    """See `Batch`."""

    kept: torch.Tensor
    kept_tokens: tuple[torch.Tensor, ...]
    kept_text: dict[str, torch.Tensor] | None


# (epoch, sample, shape of its latent) -> the sample's random numbers.
Draw = Callable[[int, int, tuple[int, int, int]], SampleDraws]


class SamplePicture(NamedTuple):
    """What a batch takes from one sample's picture; what it does not need is None.

    latent: (c, h/p, w/p) float32, from the cache.
    pixels: (h, w, 3) uint8.
    hint: (h, w, 3) uint8, the conditioning image.
    mask: (h, w) float32 in 0..1; None: every pixel counts.
    holes: (h, w) bool, what is painted anew.
    """

    latent: torch.Tensor | None = None
    pixels: np.ndarray | None = None
    hint: np.ndarray | None = None
    mask: np.ndarray | None = None
    holes: np.ndarray | None = None


# Stands in for a picture that cannot be read, with --on_bad_image skip. It has no weight.
BLANK = SamplePicture()


@dataclass
class BatchBuilder(Builder):
    """Builds batches of pictures.

    It keeps the plans of the latest epochs and remembers which images it warned about; it has no other state.

    tokenize: captions -> token tensors, called once per batch; can be pickled when there are workers.
    draw: a sample's random numbers; can be pickled when there are workers.
    latent_space: of the model.
    total_steps: of the whole run; token_warmup_step may be a share of it.
    latents: the cached latents; no image is read then, unless `needs` asks for it.
    text: the cached text-encoder outputs; no caption is tokenized then.
    needs: what the task needs beyond what every batch has. With hints, every record must have one.
    is_fixed: pictures and captions without any random draw, as validation wants them.
    """

    data: TrainingData
    tokenize: Tokenize
    draw: Draw
    seed: int
    latent_space: LatentSpace = field(kw_only=True)
    total_steps: int = 1
    latents: LatentCache | None = None
    text: TextCache | None = None
    needs: Needs = Needs()
    rank: int = 0
    processes: int = 1
    is_fixed: bool = False
    plans: dict[int, list[GlobalBatch]] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        assert not self.needs.hints or all(record.hint is not None for record in self.data.records)

    def build(self, position: Position) -> Batch:
        """The batch at a position, always the same. Raises UserError when an image cannot be read."""
        import torch

        batch = self._plan(position.epoch)[position.batch]
        samples, real = batch.share(self.rank, self.processes)
        views = [self._view(sample, position.epoch) for sample in samples]
        captions = [self._caption(sample, position) for sample in samples]
        tokens, text = self._texts(samples, captions)
        kept = self._kept(samples[:real], captions, position)
        shape = self.latent_space.shape(*batch.size)
        draws = [self.draw(position.epoch, sample, shape) for sample in samples]
        pictures = [
            self._with_holes(self._picture(view), view, position.epoch, sample)
            for view, sample in zip(views, samples, strict=True)
        ]
        # The last samples of a short batch are copies (see `GlobalBatch.share`) and do not count.
        weights = [self._weight(view.record) for view in views[:real]] + [0.0] * (len(views) - real)
        weights = [0.0 if p is BLANK else w for p, w in zip(pictures, weights, strict=True)]
        return Batch(
            pixels=self._pixels(pictures, batch.size),
            latents=self._latents(pictures, shape),
            masks=_stack_masks([picture.mask for picture in pictures], shape),
            hints=self._hints(pictures, batch.size),
            holes=self._holes(pictures, batch.size),
            tokens=tokens,
            text=text,
            captions=captions,
            sizes=torch.tensor([view.sizes() for view in views]),
            weights=torch.tensor(weights),
            divisor=len(batch.samples) / self.processes,
            noise=torch.stack([draw.noise for draw in draws]),  # (b, c, h/p, w/p)
            u=torch.tensor([float(draw.u) for draw in draws]),
            posterior=_stack(draw.posterior for draw in draws) if self.latents is None else None,
            disturbance=_stack(draw.disturbance for draw in draws),
            offset=_stack_offsets(draws),
            network_multiplier=self.data.datasets[batch.dataset].spec.network_multiplier,
            attributes=[view.record.subset.custom_attributes for view in views],
            position=position,
            names=[view.record.image.name for view in views],
            **self._kept_texts(samples, kept),
        )

    @property
    def uses_processes(self) -> bool:  # type: ignore[override]  # it depends on what is cached
        """With cached latents there is too little to do."""
        return self.latents is None

    def for_worker(self) -> BatchBuilder:
        """Without the cached text-encoder outputs."""
        return self if self.text is None else replace(self, text=None, tokenize=_no_tokens)

    def complete(self, batch: Batch) -> Batch:
        """Add the cached text-encoder outputs."""
        if self.text is None:
            return batch
        plan = self._plan(batch.position.epoch)[batch.position.batch]
        samples, real = plan.share(self.rank, self.processes)
        tokens, text = self._texts(samples, batch.captions)
        kept = self._kept(samples[:real], batch.captions, batch.position)
        return replace(batch, tokens=tokens, text=text, **self._kept_texts(samples, kept))

    def _plan(self, epoch: int) -> list[GlobalBatch]:
        # Two epochs are kept: the loader reads ahead over the end of one, `complete` follows behind.
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
            return kept_caption(record.caption, record.subset, templates=self.needs.templates)
        return sample_caption(
            record.caption,
            record.subset,
            seed=self.seed,
            epoch=position.epoch,
            sample=sample,
            step=position.step,
            total_steps=self.total_steps,
            templates=self.needs.templates,
        )

    def _weight(self, record: Record) -> float:
        return self.data.prior_loss_weight if record.subset.is_reg else 1.0

    def _texts(
        self, samples: Sequence[int], captions: list[str]
    ) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor] | None]:
        """Tokens for the text encoders, or no tokens and the cached outputs."""
        if self.text is None:
            return self.tokenize(captions), None
        return (), self.text.outputs([self.data.samples[sample] for sample in samples], captions)

    def _kept(self, samples: Sequence[int], captions: list[str], position: Position) -> list[str | None]:
        """For each real sample, the text that is to be left as it is; None where that is none."""
        asked = self.needs.preservation
        if asked is None or self.is_fixed or not asked.is_due(self.seed, position.step):
            return []
        return [self._kept_by(asked, *one, position.epoch) for one in zip(samples, captions, strict=False)]

    def _kept_by(self, asked: Preservation, sample: int, caption: str, epoch: int) -> str | None:
        subset = self.data.records[self.data.samples[sample]].subset
        if subset.is_reg:
            return None
        return asked.text(caption, subset.class_tokens, seed=self.seed, epoch=epoch, sample=sample)

    def _kept_texts(self, samples: Sequence[int], kept: list[str | None]) -> _KeptTexts:
        """What a batch is told of them."""
        import torch

        if all(text is None for text in kept):
            return {}
        rows = kept + [None] * (len(samples) - len(kept))
        tokens, text = self._texts(samples, [row or "" for row in rows])
        weights = torch.tensor([float(row is not None) for row in rows])
        return {"kept": weights, "kept_tokens": tokens, "kept_text": text}

    def _picture(self, view: View) -> SamplePicture:
        """What the batch takes from a view's picture; BLANK when it cannot be read and is skipped."""
        if self.latents is None:
            return self._read(view)
        if view.index in self.latents.bad:
            return BLANK
        picture = self._read(view)
        if picture is BLANK:
            return BLANK
        mask = None if self.needs.hints else _cached_mask(view, self.latents)
        return picture._replace(latent=self.latents[view.index, view.flip], mask=mask)

    def _read(self, view: View) -> SamplePicture:
        """What has to be read from image files; BLANK as for `_picture`."""
        try:
            if self.needs.hints:
                return SamplePicture(
                    pixels=view.load_pixels() if self._gives_pixels else None, hint=view.load_hint()
                )
            if self.latents is not None:
                return SamplePicture(pixels=view.load_pixels() if self.needs.pixels else None)
            pixels, mask = view.load()
            return SamplePicture(pixels=pixels, mask=mask)
        except UserError as error:
            if not self.data.skips_bad_images:
                raise
            if view.index not in self.skipped:
                self.skipped.add(view.index)
                warn(f"{error}; it is skipped")
            return BLANK

    def _with_holes(self, picture: SamplePicture, view: View, epoch: int, sample: int) -> SamplePicture:
        if not self.needs.holes or picture is BLANK:
            return picture
        return picture._replace(holes=view.load_holes(self.seed, epoch, sample))

    @property
    def _gives_pixels(self) -> bool:
        return self.latents is None or self.needs.pixels

    def _pixels(self, pictures: list[SamplePicture], size: Size) -> torch.Tensor | None:
        """(b, 3, h, w) in -1..1."""
        if not self._gives_pixels:
            return None
        return to_pixels(_or_black([picture.pixels for picture in pictures], size))

    def _hints(self, pictures: list[SamplePicture], size: Size) -> torch.Tensor | None:
        """(b, 3, h, w) in 0..1."""
        if not self.needs.hints:
            return None
        return to_hints(_or_black([picture.hint for picture in pictures], size))

    def _holes(self, pictures: list[SamplePicture], size: Size) -> torch.Tensor | None:
        """(b, 1, h, w) float32, 0 or 1; a picture that is skipped has none."""
        import torch

        if not self.needs.holes:
            return None
        none = np.zeros(size[::-1], bool)
        holes = [none if picture.holes is None else picture.holes for picture in pictures]
        return torch.from_numpy(np.stack(holes)[:, None].astype(np.float32))

    def _latents(self, pictures: list[SamplePicture], shape: tuple[int, int, int]) -> torch.Tensor | None:
        """(b, c, h/p, w/p)"""
        import torch

        if self.latents is None:
            return None
        zeros = torch.zeros(shape)
        return torch.stack([zeros if picture.latent is None else picture.latent for picture in pictures])


def _cached_mask(view: View, latents: LatentCache) -> np.ndarray | None:
    """A conditioning image is read when it is needed; the alpha channel is in the cache."""
    if view.record.hint is not None:
        return view.load_hint_mask()
    return latents.mask(view.index, view.flip) if view.record.subset.alpha_mask else None


def _or_black(images: Sequence[np.ndarray | None], size: Size) -> list[np.ndarray]:
    """uint8 (h, w, 3), black in place of None."""
    black = np.zeros((size[1], size[0], 3), np.uint8)
    return [black if image is None else image for image in images]


def _stack_masks(masks: Sequence[np.ndarray | None], shape: tuple[int, int, int]) -> torch.Tensor | None:
    """Masks (h, w) -> (b, 1, h/p, w/p), for latents of this shape. Without a mask every place counts."""
    import torch

    if all(mask is None for mask in masks):
        return None
    _, height, width = shape
    small = [
        np.ones((height, width), np.float32) if mask is None else latent_mask(mask, (height, width))
        for mask in masks
    ]
    return torch.from_numpy(np.stack(small))[:, None]


def _stack(tensors: Iterable[torch.Tensor | None]) -> torch.Tensor | None:
    """The tensors as one with a batch dimension; None when there are none."""
    import torch

    found = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(found) if found else None


def _stack_offsets(draws: Sequence[SampleDraws]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Normal numbers (b, c, 1, 1) and strengths (b, 1, 1, 1)."""
    import torch

    offsets = [draw.offset for draw in draws if draw.offset is not None]
    if not offsets:
        return None
    normals, strengths = zip(*offsets, strict=True)
    return torch.stack(normals), torch.stack(strengths)


def _no_tokens(captions: list[str]) -> tuple[torch.Tensor, ...]:
    return ()
