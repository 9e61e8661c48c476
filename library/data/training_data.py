"""What a run trains on: every dataset scanned, balanced and sorted into buckets. Needs no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from library.data.buckets import Size, aspect_error
from library.data.config.contradictions import find_contradictions, warn_of_unused
from library.data.config.datasets import MOST_SAMPLES, collect_datasets
from library.data.config.specs import DatasetSpec, SubsetSpec
from library.data.plan import BucketSamples, batches_per_epoch
from library.data.scan.hints import note_spare
from library.data.scan.records import Record, ScanRules, SubsetScan, refit, scan_subset
from library.data.scan.unused import note_unused
from library.data.scan.validation import hold_out
from library.data.tags import count_tags
from library.latent_space import LatentSpace
from library.options.caching import CachingOptions
from library.options.data import DataOptions
from library.options.validation import ValidationOptions
from library.problems import Problem, Problems
from library.wording import counted


@dataclass
class Dataset:
    """A scanned dataset.

    records: the images in use, training images first.
    dropped_reg: number of regularization samples left out because there are fewer training samples.
    held_out: number of images held out for validation.
    """

    spec: DatasetSpec
    scans: list[SubsetScan]
    records: list[Record]
    dropped_reg: int = 0
    held_out: int = 0

    @property
    def train_count(self) -> int:
        """Training samples per epoch: images with their repeats."""
        return sum(record.repeats for record in self.records if not record.subset.is_reg)

    @property
    def reg_count(self) -> int:
        """Regularization samples per epoch."""
        return sum(record.repeats for record in self.records if record.subset.is_reg)

    @property
    def reg_found(self) -> int:
        """Regularization images with their repeats, before they are balanced with the training samples
        (`ss_num_reg_images`).
        """
        return sum(len(scan.records) * scan.subset.num_repeats for scan in self.scans if scan.subset.is_reg)

    def bucket_counts(self) -> dict[Size, int]:
        """Samples per epoch by bucket, in order of size."""
        counts: Counter[Size] = Counter()
        for record in self.records:
            counts[record.fit.bucket] += record.repeats
        return dict(sorted(counts.items()))

    def bucket_info(self) -> dict[str, Any] | None:
        """`ss_bucket_info` of model metadata: samples per bucket and the images' mean aspect error; None
        without buckets.
        """
        if not self.spec.enable_bucket:
            return None
        errors = [abs(aspect_error(record.fit.bucket, record.size)) for record in self.records]
        buckets = {
            str(index): {"resolution": list(size), "count": count}
            for index, (size, count) in enumerate(self.bucket_counts().items())
        }
        return {"buckets": buckets, "mean_img_ar_error": sum(errors) / len(errors)}

    @cached_property
    def tag_frequency(self) -> dict[str, dict[str, int]]:
        """`ss_tag_frequency`: for each folder or metadata file, how often its captions have each tag. Counted
        once for all saves of a run.
        """
        frequency: dict[str, Counter[str]] = {}
        for scan in self.scans:
            counts = frequency.setdefault(scan.subset.name, Counter())
            counts.update(count_tags((record.caption for record in scan.records), scan.subset))
        return {name: dict(counts) for name, counts in frequency.items()}


@dataclass
class TrainingData:
    """All datasets of a run.

    Random draws are keyed by the numbers of samples and records.

    prior_loss_weight: the loss weight of regularization images.
    validation: the held-out images, none of which is in `records`; None when nothing is held out.
    bad_images: why images were left out that cannot be used.
    skips_bad_images: whether images that turn out to be bad later are skipped.
    records: the images of all datasets, one dataset after the other.
    samples[i]: the record of sample i of an epoch, by its index; repeats of a record stand together.
    buckets: the samples of each dataset by size.
    """

    datasets: list[Dataset]
    prior_loss_weight: float = 1.0
    validation: TrainingData | None = None
    bad_images: list[Problem] = field(default_factory=list)
    skips_bad_images: bool = False
    records: list[Record] = field(init=False)
    samples: list[int] = field(init=False)
    buckets: list[BucketSamples] = field(init=False)

    def __post_init__(self) -> None:
        self.records = [record for dataset in self.datasets for record in dataset.records]
        self.samples = [index for index, record in enumerate(self.records) for _ in range(record.repeats)]
        self.buckets = self._sort_into_buckets()

    @classmethod
    def scan(
        cls,
        options: DataOptions,
        caching: CachingOptions | None = None,
        *,
        latent_space: LatentSpace,
        validation: ValidationOptions | None = None,
        has_network: bool = True,
        paints_anew: bool = True,
        writes: bool = True,
    ) -> TrainingData:
        """Scan every image and caption that the options name.

        caching, validation: the run's options; settings that have no effect with them give a warning.
        latent_space: of the model's family.
        has_network: whether the run trains a network; settings that need one give a warning without it.
        paints_anew: whether the run trains an inpainting model, the same.
        writes: whether metadata_cache.json files may be written.
        Raises UserError with everything that is wrong with the dataset file, folders, images and captions,
        and with settings that contradict `caching`.
        """
        problems = Problems()
        data = cls.collect(
            options, caching or CachingOptions(), problems, latent_space=latent_space, writes=writes
        )
        problems.raise_if_any()
        specs = [dataset.spec for dataset in data.datasets]
        warn_of_unused(
            specs, validation or ValidationOptions(), has_network=has_network, paints_anew=paints_anew
        )
        return data

    @classmethod
    def collect(
        cls,
        options: DataOptions,
        caching: CachingOptions,
        problems: Problems,
        *,
        latent_space: LatentSpace,
        writes: bool = True,
    ) -> TrainingData:
        """As `scan`, but adds to `problems` and returns whatever can be used, maybe nothing."""
        specs = collect_datasets(options, problems, pixel_multiple=latent_space.pixel_multiple)
        find_contradictions(specs, options, caching, problems)
        found = _scan_all(specs, options, problems, writes)
        if too_many := _too_many_samples(found):
            problems.add(*too_many)
            return cls([])
        parts = [_make_dataset(spec, scans, problems) for spec, scans in zip(specs, found, strict=True)]
        held_out = [part for _, part in parts if part is not None]
        skips = options.on_bad_image == "skip"
        bad_images = [bad for scans in found for scan in scans for bad in scan.bad_images]
        return cls(
            [dataset for dataset, _ in parts],
            options.prior_loss_weight,
            validation=cls(held_out, skips_bad_images=skips) if held_out else None,
            bad_images=list(dict.fromkeys(bad_images)),
            skips_bad_images=skips,
        )

    @property
    def image_count(self) -> int:
        """Images in use."""
        return len(self.records)

    @property
    def train_count(self) -> int:
        """Training samples per epoch (`ss_num_train_images`)."""
        return sum(dataset.train_count for dataset in self.datasets)

    @property
    def reg_count(self) -> int:
        """Regularization samples per epoch."""
        return sum(dataset.reg_count for dataset in self.datasets)

    def batches_per_epoch(self, processes: int) -> int:
        """Global batches per epoch, the same in every epoch."""
        return batches_per_epoch(self, processes)

    def bucket_info(self) -> dict[str, Any] | None:
        """`ss_bucket_info` when there is one dataset; with several each has its own (`datasets[i]`)."""
        return self.datasets[0].bucket_info() if len(self.datasets) == 1 else None

    def tag_frequency(self) -> dict[str, dict[str, int]]:
        """`ss_tag_frequency`. A folder that several datasets share counts once."""
        frequency: dict[str, dict[str, int]] = {}
        for dataset in self.datasets:
            frequency = dataset.tag_frequency | frequency
        return frequency

    def dirs(self, *, is_reg: bool = False) -> dict[str, dict[str, int]]:
        """`ss_dataset_dirs` (or `ss_reg_dataset_dirs`): repeats and image count by base name; a name that is
        there already gets " (2)".
        """
        found: dict[str, dict[str, int]] = {}
        for scan in (scan for dataset in self.datasets for scan in dataset.scans):
            if scan.subset.is_reg == is_reg:
                name = _free_name(scan.subset.name, found)
                found[name] = {"n_repeats": scan.subset.num_repeats, "img_count": len(scan.records)}
        return found

    def _sort_into_buckets(self) -> list[BucketSamples]:
        dataset_of = [index for index, dataset in enumerate(self.datasets) for _ in dataset.records]
        samples: dict[tuple[int, tuple[int, int]], list[int]] = {}
        for sample, record in enumerate(self.samples):
            key = dataset_of[record], self.records[record].fit.bucket
            samples.setdefault(key, []).append(sample)
        return [
            BucketSamples(dataset, size, self.datasets[dataset].spec.batch_size, tuple(found))
            for (dataset, size), found in sorted(samples.items())
        ]


def _scan_all(
    specs: list[DatasetSpec], options: DataOptions, problems: Problems, writes: bool
) -> list[list[SubsetScan]]:
    """Each dataset's scans. The resolutions of a dataset share their subsets, which are scanned once."""
    subsets = [subset for spec in specs for subset in spec.subsets]
    rules = ScanRules(
        min_side=options.min_image_side,
        skips_bad=options.on_bad_image == "skip",
        needs_captions=options.fine_tuning and options.in_json is None,
        folders=frozenset(folder.resolve() for subset in subsets for folder in _folders(subset)),
        writes=writes,
    )
    users: dict[int, list[DatasetSpec]] = {}
    for spec in specs:
        for subset in spec.subsets:
            users.setdefault(id(subset), []).append(spec)
    done: dict[int, SubsetScan] = {}

    def scan(spec: DatasetSpec, subset: SubsetSpec) -> SubsetScan:
        if id(subset) in done:
            return refit(done[id(subset)], spec)
        return done.setdefault(id(subset), scan_subset(users[id(subset)], subset, problems, rules))

    scans = [[scan(spec, subset) for subset in spec.subsets] for spec in specs]
    _note_spare_hints(list(done.values()))
    note_unused(done.values())
    return scans


def _note_spare_hints(scans: list[SubsetScan]) -> None:
    sharing: dict[Path, list[SubsetScan]] = {}
    for scan in scans:
        for folder in scan.spare_hints:
            sharing.setdefault(folder, []).append(scan)
    for folder, users in sharing.items():
        users[0].notes.extend(note_spare(folder, [scan.spare_hints[folder] for scan in users]))


def _too_many_samples(found: list[list[SubsetScan]]) -> tuple[str, str, str] | None:
    """The problem of more samples than can be listed, before they are."""
    scans = [scan for dataset in found for scan in dataset]
    if sum(record.repeats for scan in scans for record in scan.records) <= MOST_SAMPLES:
        return None
    most = max(scans, key=lambda scan: sum(record.repeats for record in scan.records))
    count, repeats = len(most.records), most.subset.num_repeats
    cause = (
        f"is read as {counted(count, 'image')} x {repeats:,} repeats; an epoch has at most {MOST_SAMPLES:,}"
    )
    return str(most.subset.source), cause, "lower num_repeats, the folder's number or --dataset_repeats"


def _folders(subset: SubsetSpec) -> list[Path]:
    folders = (subset.image_dir, subset.conditioning_data_dir, subset.mask_folder)
    return [folder for folder in folders if folder is not None]


def _make_dataset(
    spec: DatasetSpec, scans: list[SubsetScan], problems: Problems
) -> tuple[Dataset, Dataset | None]:
    """The dataset and, when some of its images are held out, a dataset of those."""
    trained, held_out = hold_out(spec, scans)
    train = [record for scan in trained if not scan.subset.is_reg for record in scan.records]
    reg = [record for scan in trained if scan.subset.is_reg for record in scan.records]
    if not train and not problems.found:
        where = ", ".join(str(subset.source) for subset in spec.subsets) or "dataset"
        problems.add(where, "there are no images to train on", _no_images_fix(scans))
    balanced, dropped = balance_regularization(train, reg)
    held = [record for scan in held_out for record in scan.records]
    dataset = Dataset(spec, trained, train + balanced, dropped, len(held))
    return dataset, Dataset(spec, held_out, held) if held else None


def _no_images_fix(scans: list[SubsetScan]) -> str:
    if any(scan.bad_images for scan in scans):
        return "every one is bad; without --on_bad_image skip you are told why"
    return "regularization images alone are not enough" if scans else "every subset is left out"


def balance_regularization(train: list[Record], reg: list[Record]) -> tuple[list[Record], int]:
    """As many regularization samples as training samples, and the number of samples that are left out.

    Images are taken in order, with their repeats, until there are enough. When there are too few, each in
    turn is repeated once more.
    """
    wanted = sum(record.repeats for record in train)
    available = sum(record.repeats for record in reg)
    repeats, left = [], wanted
    for record in reg:
        repeats.append(min(record.repeats, left))
        left -= repeats[-1]
    if reg:
        rounds, rest = divmod(left, len(reg))
        repeats = [count + rounds + (index < rest) for index, count in enumerate(repeats)]
    used = [replace(r, repeats=count) for r, count in zip(reg, repeats, strict=True) if count]
    return used, max(0, available - wanted)


def _free_name(name: str, taken: Iterable[str]) -> str:
    taken, number = set(taken), 2
    candidate = name
    while candidate in taken:
        candidate, number = f"{name} ({number})", number + 1
    return candidate
