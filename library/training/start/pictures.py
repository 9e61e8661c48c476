"""Pictures and captions on disk as a run's source of batches."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.data.batch import Needs
from library.data.buckets import size_text
from library.data.builder import BatchBuilder
from library.data.captions import caption_changing_setting
from library.data.plan import GlobalBatch, plan_epoch
from library.data.scan.folders import name_some
from library.data.stamps import PictureStamps
from library.data.summary import summary_lines, warning_lines
from library.data.training_data import TrainingData
from library.data.views import picture_changing_setting
from library.models.base import Model
from library.models.prompt_weights import training_tokenizer
from library.training.batches import BatchSource
from library.training.diffusion.noise import NoiseDraw
from library.training.diffusion.objective import make_timesteps
from library.training.diffusion.strata import Strata
from library.training.output import Moment
from library.training.run import TrainingRun
from library.training.saving.metadata import describe_data
from library.training.saving.settings import settings_of_datasets
from library.training.session import Session
from library.training.start.caching import Cached, Identities, fill_caches
from library.wording import columns, counted

if TYPE_CHECKING:
    from library.pages.markup import Html

MOST_BUCKETS = 12  # lines about batches of one size


class Pictures(BatchSource):
    """Scanned datasets. Their caches belong to them: whoever builds a batch need not know of them."""

    def __init__(self, data: TrainingData) -> None:
        self.data = data
        self.cached = Cached()
        self._identities = Identities()
        held_out = data.validation.records if data.validation else []
        self._stamps = PictureStamps([*data.records, *held_out])
        self._validation = None if data.validation is None else Pictures(data.validation)

    @property
    def validation(self) -> Pictures | None:
        return self._validation

    def batches_per_epoch(self, processes: int) -> int:
        return self.data.batches_per_epoch(processes)

    def fingerprint(self, seed: int, processes: int) -> str:
        records = (self.data.records[index] for index in self.data.samples)
        text = "\n".join(
            [
                *(f"{record.image.name} {record.caption}" for record in records),
                *(f"{batch.size} {batch.samples}" for batch in self._first_epoch(seed, processes)),
            ]
        )
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def builder(
        self,
        model: Model,
        run: TrainingRun,
        session: Session,
        *,
        total_steps: int,
        needs: Needs,
        fixed_seed: int | None = None,
    ) -> BatchBuilder:
        is_fixed = fixed_seed is not None
        seed = session.seed if fixed_seed is None else fixed_seed
        encodes = self.cached.latents is None  # then each picture takes the posterior's noise
        return BatchBuilder(
            self.data,
            training_tokenizer(model, run.model.max_token_length, weighted=run.data.weighted_captions),
            NoiseDraw(seed, encodes=encodes) if is_fixed else self._draws(model, run, seed, encodes=encodes),
            seed,
            latent_space=model.latent_space,
            total_steps=total_steps,
            latents=self.cached.latents,
            text=self.cached.text,
            needs=needs,
            rank=session.accelerator.process_index,
            processes=session.accelerator.num_processes,
            is_fixed=is_fixed,
        )

    def _draws(self, model: Model, run: TrainingRun, seed: int, *, encodes: bool) -> NoiseDraw:
        """The random draws of training."""
        options, data = run.objective, self.data
        times = make_timesteps(options, model.prediction_type, ends_in_noise=model.zero_terminal_snr)
        strata = None
        if options.stratified_timesteps:
            strata = Strata([id(data.records[record].subset) for record in data.samples], seed)
        return NoiseDraw(seed, options, encodes, times, strata)

    def identify(self, model: Model, run: TrainingRun) -> None:
        self._identities = Identities.of(model, run)

    def fill_caches(self, model: Model, run: TrainingRun, session: Session) -> None:
        found = fill_caches(model, run, session, self.data, self._identities)
        self.cached = found
        if self._validation is not None:
            self._validation.cached = found.validation

    def largest_batch(self, seed: int, processes: int) -> int:
        """The first one with the most pixels."""
        batches = self._first_epoch(seed, processes)
        sizes = [batch.size[0] * batch.size[1] * len(batch.samples) for batch in batches]
        return sizes.index(max(sizes))

    def could_be_cached(self) -> tuple[bool, bool]:
        subsets = [scan.subset for dataset in self.data.datasets for scan in dataset.scans]
        return (
            not any(map(picture_changing_setting, subsets)),
            not any(map(caption_changing_setting, subsets)),
        )

    @property
    def resolution(self) -> tuple[int, int]:
        return self.data.datasets[0].spec.resolution

    def summary(self) -> list[str]:
        return summary_lines(self.data)

    def warnings(self) -> list[str]:
        return warning_lines(self.data)

    def outline(self, seed: int, processes: int) -> list[str]:
        batches = self._first_epoch(seed, processes)
        counts, samples = Counter[tuple[int, tuple[int, int]]](), Counter[tuple[int, tuple[int, int]]]()
        for batch in batches:
            counts[batch.dataset, batch.size] += 1
            samples[batch.dataset, batch.size] += len(batch.samples)
        order = sorted(counts, key=lambda key: (key[0], key[1][0] / key[1][1]))
        rows = [
            (
                f"  {size_text(size)}",
                counted(samples[dataset, size], "sample"),
                counted(counts[dataset, size], "batch", "batches"),
            )
            for dataset, size in order
        ]
        more = len(rows) - MOST_BUCKETS
        lines = [line for line in self.summary() if "buckets: " not in line] + ["in batches:"]
        lines += columns(rows[:MOST_BUCKETS], right=(1, 2))
        return lines + ([f"  and {counted(more, 'bucket')} more"] if more > 0 else [])

    def contents(self) -> list[str]:
        return [f"{record.image.name} {record.fit.bucket} {record.caption}" for record in self.data.records]

    def settings(self) -> dict[str, Any]:
        return settings_of_datasets(self.data)

    def stamps(self, seconds: float) -> dict[str, Any]:
        return self._stamps.now(seconds)

    def edits(self, stamps: dict[str, Any]) -> list[str]:
        edited = self._stamps.edited(stamps)
        kinds = (
            ("picture was", "pictures were", edited.pictures),
            ("caption was", "captions were", edited.captions),
        )
        return [
            f"{counted(len(names), one, many)} edited: {name_some(names)}"
            for one, many, names in kinds
            if names
        ]

    def metadata(self, run: TrainingRun, moment: Moment) -> dict[str, Any]:
        return describe_data(run, self.data, moment)

    def places(self) -> set[Path]:
        return {scan.subset.source for dataset in self.data.datasets for scan in dataset.scans}

    def report_figures(self) -> list[tuple[str, str]]:
        from library.pages.figures import number

        return [("pictures", number(self.data.image_count))]

    def report_section(self) -> Html:
        from library.data.report.sections import sources
        from library.pages.figures import Bar, bars, times
        from library.pages.markup import element, join

        buckets = [
            bars([Bar(times(size), count, size) for size, count in dataset.bucket_counts().items()])
            for dataset in self.data.datasets
        ]
        heading = element("h3", "Samples per epoch in each size")
        return join([sources(self.data, with_folders=False), heading, buckets])

    def _first_epoch(self, seed: int, processes: int) -> list[GlobalBatch]:
        return plan_epoch(self.data, seed, 0, processes)
