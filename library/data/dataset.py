"""Batches: what one training step sees, and the loader that makes them.

A batch is a function of its position in the run: the loader's processes hold no state, so nothing depends on
how many there are, and they read ahead over the end of an epoch.
"""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from library.data.buckets import centre_crop, random_crop
from library.data.captions import final_caption, is_random
from library.data.images import load_pixels
from library.data.plan import Course, GlobalBatch, Position, plan_epoch
from library.data.records import Record
from library.data.training_data import TrainingData
from library.problems import Problem, UserError
from library.randomness import keyed_random

if TYPE_CHECKING:
    import torch

    from library.data.cache import LatentCache

LATENT_CHANNELS = 4
PIXELS_PER_LATENT = 8  # per side: what the VAE of every supported family makes one latent of
BATCHES_AHEAD = 4

Tokenize = Callable[[list[str]], "tuple[torch.Tensor, ...]"]


class SampleDraws(Protocol):
    """The random numbers of one sample. u: uniform in [0, 1)."""

    noise: torch.Tensor
    u: float
    posterior: torch.Tensor | None


Draw = Callable[[int, int, tuple[int, int, int]], SampleDraws]


@dataclass
class Batch:
    """What one step sees; b samples of one size, this rank's share of a global batch.

    pixels: (b, 3, h, w) in -1..1, or None when latents are cached.
    latents: (b, 4, h/8, w/8), scaled, or None.
    tokens: what tokenize gives: per text encoder (b, chunks, 77) int64; after them, when captions have
        weights, those of the positions, float32.
    captions: the final captions.
    sizes: (b, 6) int64: original height, width; crop top, left in the resized image (mirrored when the image
        is); target height, width.
    weights: (b,) float32, loss weights: prior_loss_weight for regularization images, 0 for padding, else 1.
    divisor: loss = (loss per sample x weights).sum() / divisor; the real samples of the global batch per
        process.
    noise: (b, 4, h/8, w/8) standard normal.
    u: (b,) float32 in [0, 1), becomes the timestep.
    posterior: (b, 4, h/8, w/8) standard normal, to sample what the VAE gives; None when latents are cached.
    names: base names of the images, for messages.
    """

    pixels: torch.Tensor | None
    latents: torch.Tensor | None
    tokens: tuple[torch.Tensor, ...]
    captions: list[str]
    sizes: torch.Tensor
    weights: torch.Tensor
    divisor: float
    noise: torch.Tensor
    u: torch.Tensor
    posterior: torch.Tensor | None
    position: Position
    names: list[str]

    def to(self, device: torch.device | str) -> Batch:
        """The batch with its tensors on a device; copies from pinned memory do not block."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The batch with its tensors in pinned memory. torch's DataLoader calls this by name."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        import torch

        def changed(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(change, value))
            return change(value) if isinstance(value, torch.Tensor) else value

        names = [entry.name for entry in fields(self) if entry.name != "position"]
        return replace(self, **{name: changed(getattr(self, name)) for name in names})


def make_loader(
    data: TrainingData,
    course: Course,
    *,
    first_step: int,
    last_step: int,
    tokenize: Tokenize,
    draw: Draw,
    seed: int,
    latents: LatentCache | None = None,
    rank: int = 0,
    processes: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """The batches of steps `first_step` up to, but not including, `last_step`: one iterator for a whole run.

    tokenize: captions -> token tensors, called once per batch. draw: (epoch, sample, latent shape) -> the
    sample's random numbers. Both must be picklable when there are workers.
    latents: from `cache_latents`; then no image is read, and a thread builds batches ahead instead of
    processes. workers: 0 builds every batch when it is asked for.

    What goes wrong while a batch is built is raised here; a bad image is a UserError.
    """
    builder = BatchBuilder(data, tokenize, draw, seed, latents, rank, processes)
    positions = course.positions(first_step, last_step)
    if workers > 0 and latents is None:
        return _from_processes(builder, list(positions), workers, pin_memory)
    batches: Iterator[Batch] = map(builder.build, positions)
    if pin_memory:
        batches = map(Batch.pin_memory, batches)
    return _from_thread(batches) if workers > 0 else batches


@dataclass(frozen=True)
class View:
    """A sample of an epoch: an image (`index` is its record's), its crop, and whether it is mirrored."""

    index: int
    record: Record
    crop: tuple[int, int]
    flip: bool

    def load(self) -> np.ndarray:
        """uint8, (height, width, 3)."""
        return load_pixels(
            self.record.image,
            self.record.fit,
            crop=self.crop,
            flip=self.flip,
            size=self.record.size,
            interpolation=self.record.subset.resize_interpolation,
        )

    def sizes(self) -> tuple[int, int, int, int, int, int]:
        """A row of `Batch.sizes`."""
        (width, height), (left, top), fit = self.record.size, self.crop, self.record.fit
        if self.flip:
            left = fit.resized[0] - fit.bucket[0] - left
        return height, width, top, left, fit.bucket[1], fit.bucket[0]


def make_view(record: Record, *, index: int, seed: int, epoch: int, sample: int) -> View:
    """The sample's crop and flip in this epoch."""
    subset = record.subset
    if not (subset.random_crop or subset.flip_aug):
        return View(index, record, centre_crop(record.fit), False)
    rng = keyed_random(seed, "crop and flip", epoch, sample)
    crop = random_crop(record.fit, rng) if subset.random_crop else centre_crop(record.fit)
    return View(index, record, crop, subset.flip_aug and rng.random() < 0.5)


def to_pixels(images: list[np.ndarray]) -> torch.Tensor:
    """uint8 images of one size, (h, w, 3) -> (b, 3, h, w) float32 in -1..1."""
    import torch

    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return stacked.float().div_(127.5).sub_(1.0)


@dataclass
class BatchBuilder:
    """position -> this rank's batch. Holds the plans of the latest epochs, nothing else that changes."""

    data: TrainingData
    tokenize: Tokenize
    draw: Draw
    seed: int
    latents: LatentCache | None
    rank: int
    processes: int
    plans: dict[int, list[GlobalBatch]] = field(default_factory=dict)

    def build(self, position: Position) -> Batch:
        """The batch at a position, always the same. Raises UserError when an image cannot be read."""
        import torch

        batch = self._plan(position.epoch)[position.batch]
        samples, real = batch.share(self.rank, self.processes)
        views = [self._view(sample, position.epoch) for sample in samples]
        captions = [self._caption(sample, position.epoch) for sample in samples]
        width, height = (side // PIXELS_PER_LATENT for side in batch.size)
        draws = [self.draw(position.epoch, sample, (LATENT_CHANNELS, height, width)) for sample in samples]
        weights = [self._weight(view.record) for view in views[:real]] + [0.0] * (len(views) - real)
        return Batch(
            **self._pictures(views, draws),
            tokens=self.tokenize(captions),
            captions=captions,
            sizes=torch.tensor([view.sizes() for view in views]),
            weights=torch.tensor(weights),
            divisor=len(batch.samples) / self.processes,
            noise=torch.stack([draw.noise for draw in draws]),
            u=torch.tensor([float(draw.u) for draw in draws]),
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
        return make_view(self.data.records[index], index=index, seed=self.seed, epoch=epoch, sample=sample)

    def _caption(self, sample: int, epoch: int) -> str:
        record = self.data.records[self.data.samples[sample]]
        rng = keyed_random(self.seed, "caption", epoch, sample) if is_random(record.subset) else None
        return final_caption(record.caption, record.subset, rng, epoch=epoch)

    def _weight(self, record: Record) -> float:
        return self.data.prior_loss_weight if record.subset.is_reg else 1.0

    def _pictures(self, views: list[View], draws: list[SampleDraws]) -> dict[str, torch.Tensor | None]:
        """Cached latents, or pixels and the draws to encode them with."""
        import torch

        if self.latents is not None:
            found = [self.latents[view.index, view.flip] for view in views]
            return {"pixels": None, "latents": torch.stack(found), "posterior": None}
        posteriors = [draw.posterior for draw in draws if draw.posterior is not None]
        return {
            "pixels": to_pixels([view.load() for view in views]),
            "latents": None,
            "posterior": torch.stack(posteriors) if posteriors else None,
        }


@dataclass
class _InProcess:
    """The builder as torch's DataLoader indexes it. A UserError does not survive the way between processes as
    it is, so its problems are sent.
    """

    builder: BatchBuilder

    def __getitem__(self, position: Position) -> Batch | list[Problem]:
        try:
            return self.builder.build(position)
        except UserError as error:
            return error.problems


def _from_processes(
    builder: BatchBuilder, positions: list[Position], workers: int, pin_memory: bool
) -> Iterator[Batch]:
    import torch
    from torch.utils.data import DataLoader

    loader = DataLoader(
        _InProcess(builder),
        batch_size=None,
        sampler=positions,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # the loader draws a number, which must not be the global generator's
    )
    for batch in loader:
        if isinstance(batch, list):
            raise UserError(batch)
        yield batch


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _start_worker(worker: int) -> None:
    """OpenCV's own threads hang in a forked process, and the workers share the cores as it is.

    Signals reach every process of a run, which then saves its state: workers go on until it ends them.
    """
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)


def _from_thread(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, built ahead in a thread, which ends with the iterator. Its exceptions are raised
    here.
    """
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(BATCHES_AHEAD)
    is_over = threading.Event()

    def work() -> None:
        try:
            for batch in batches:
                ready.put(batch)
                if is_over.is_set():
                    return
            ready.put(None)
        except BaseException as error:
            ready.put(error)

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        is_over.set()
        while not ready.empty():  # makes room, in case the thread waits to put a batch
            ready.get_nowait()
        thread.join()
