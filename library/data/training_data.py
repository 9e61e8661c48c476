"""What a run trains on: every dataset scanned, balanced and sorted into buckets. Needs no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from library.data.buckets import aspect_error
from library.data.config import collect_datasets
from library.data.plan import BucketSamples, batches_per_epoch
from library.data.records import Record, SubsetScan, scan_subset
from library.data.specs import DatasetSpec
from library.options.data import DataOptions
from library.problems import Problems

# An image enlarged more than this, or with more than this share cut off, is most likely there by mistake.
LARGE_ENLARGEMENT = 3.0
LARGE_CUT = 0.5


@dataclass
class Dataset:
    """A scanned dataset. records: the images in use, training images first; dropped_reg: regularization
    samples beyond the number of training samples.
    """

    spec: DatasetSpec
    scans: list[SubsetScan]
    records: list[Record]
    dropped_reg: int = 0

    @property
    def train_count(self) -> int:
        """Training samples per epoch: images with their repeats."""
        return sum(record.repeats for record in self.records if not record.subset.is_reg)

    @property
    def reg_count(self) -> int:
        """Regularization samples per epoch."""
        return sum(record.repeats for record in self.records if record.subset.is_reg)

    def bucket_info(self) -> dict[str, Any] | None:
        """`ss_bucket_info` of model metadata: samples per bucket and the images' mean aspect error; None
        without buckets.
        """
        if not self.spec.enable_bucket:
            return None
        errors = [abs(aspect_error(record.fit.bucket, record.size)) for record in self.records]
        buckets = {
            str(index): {"resolution": list(size), "count": count}
            for index, (size, count) in enumerate(sorted(self._bucket_counts().items()))
        }
        return {"buckets": buckets, "mean_img_ar_error": sum(errors) / len(errors)}

    def tag_frequency(self) -> dict[str, dict[str, int]]:
        """`ss_tag_frequency`: for each folder or metadata file, how many captions have a tag."""
        frequency: dict[str, Counter[str]] = {}
        for scan in self.scans:
            counts = frequency.setdefault(scan.subset.name, Counter())
            for record in scan.records:
                counts.update(tag.strip().lower() for tag in record.caption.split(",") if tag.strip())
        return {name: dict(counts) for name, counts in frequency.items()}

    def summary(self) -> list[str]:
        """What is in it, for the console."""
        spec = self.spec
        lines = [f"resolution {_size(spec.resolution)}, batch size {spec.batch_size}, {_bucket_mode(spec)}"]
        for scan in self.scans:
            subset = scan.subset
            kind = "regularization images" if subset.is_reg else "images"
            tokens = f', "{subset.class_tokens}"' if subset.class_tokens else ""
            lines.append(f"  {subset.source}: {len(scan.records)} {kind} x {subset.num_repeats}{tokens}")
        if spec.enable_bucket:
            counts = sorted(self._bucket_counts().items())
            lines.append("  buckets: " + ", ".join(f"{_size(size)} ({count})" for size, count in counts))
        reg = f" and {self.reg_count} regularization samples" if self.reg_count else ""
        lines.append(f"  {self.train_count} training samples{reg} per epoch")
        return lines

    def warnings(self) -> list[str]:
        """What the user may not expect."""
        lines = [line for scan in self.scans for line in [*_caption_warnings(scan), *scan.notes]]
        if self.dropped_reg:
            lines.append(
                f"{self.dropped_reg} regularization samples are not used: there are only {self.train_count}"
                " training samples"
            )
        return lines + self._small_bucket_warnings() + self._odd_size_warnings()

    def _bucket_counts(self) -> Counter[tuple[int, int]]:
        counts: Counter[tuple[int, int]] = Counter()
        for record in self.records:
            counts[record.fit.bucket] += record.repeats
        return counts

    def _small_bucket_warnings(self) -> list[str]:
        counts = self._bucket_counts()
        small = [_size(size) for size, count in sorted(counts.items()) if count < self.spec.batch_size]
        if not small:
            return []
        return [f"buckets with fewer samples than a batch of {self.spec.batch_size}: {_names(small)}"]

    def _odd_size_warnings(self) -> list[str]:
        enlarged = [r.image.name for r in self.records if r.fit.resized[0] > r.size[0] * LARGE_ENLARGEMENT]
        cut = [r.image.name for r in self.records if _cut_off(r) > LARGE_CUT]
        lines = []
        if enlarged:
            lines.append(f"{len(enlarged)} images are enlarged more than three times: {_names(enlarged)}")
        if cut:
            lines.append(f"{len(cut)} images lose more than half of their area to the crop: {_names(cut)}")
        return lines


@dataclass
class TrainingData:
    """All datasets of a run.

    records: images of all datasets in a row. samples: for each sample of an epoch the index of its record;
    repeats of a record stand together. A sample's and a record's number are what randomness is keyed by.
    prior_loss_weight: weight of regularization images.
    """

    datasets: list[Dataset]
    prior_loss_weight: float = 1.0
    records: list[Record] = field(init=False)
    samples: list[int] = field(init=False)
    buckets: list[BucketSamples] = field(init=False)

    def __post_init__(self) -> None:
        self.records = [record for dataset in self.datasets for record in dataset.records]
        self.samples = [index for index, record in enumerate(self.records) for _ in range(record.repeats)]
        self.buckets = self._sort_into_buckets()

    @classmethod
    def scan(cls, options: DataOptions) -> TrainingData:
        """Look at every image and caption that the options name.

        Raises UserError with everything that is wrong with the dataset file, folders, images and captions.
        """
        problems = Problems()
        specs = collect_datasets(options, problems)
        for subset in (subset for spec in specs for subset in spec.subsets):
            if options.cache_latents and subset.random_crop:
                cause = "random_crop cannot be combined with --cache_latents: a cached latent has one crop"
                problems.add(subset.source, cause)
        datasets = [_scan_dataset(spec, problems) for spec in specs]
        problems.raise_if_any()
        return cls(datasets, options.prior_loss_weight)

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
        """Regularization samples per epoch (`ss_num_reg_images`)."""
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
            frequency = dataset.tag_frequency() | frequency
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

    def summary(self) -> list[str]:
        """What there is to train on, for the console."""
        lines = []
        for number, dataset in enumerate(self.datasets, 1):
            first, *rest = dataset.summary()
            lines += [f"dataset {number}: {first}", *rest]
        return lines

    def warnings(self) -> list[str]:
        """What the user may not expect, each thing once."""
        return list(dict.fromkeys(line for dataset in self.datasets for line in dataset.warnings()))

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


def _scan_dataset(spec: DatasetSpec, problems: Problems) -> Dataset:
    scans = [scan_subset(spec, subset, problems) for subset in spec.subsets]
    train = [record for scan in scans if not scan.subset.is_reg for record in scan.records]
    reg = [record for scan in scans if scan.subset.is_reg for record in scan.records]
    if not train and not problems.found:
        where = ", ".join(str(subset.source) for subset in spec.subsets) or "dataset"
        fix = "regularization images alone are not enough" if reg else "every subset is left out"
        problems.add(where, "there are no images to train on", fix)
    balanced, dropped = balance_regularization(train, reg)
    return Dataset(spec, scans, train + balanced, dropped)


def balance_regularization(train: list[Record], reg: list[Record]) -> tuple[list[Record], int]:
    """As many regularization samples as training samples, and how many samples that leaves unused.

    Images are taken in order, with their repeats, until there are enough; when they are too few, each in turn
    is repeated once more.
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


def _caption_warnings(scan: SubsetScan) -> list[str]:
    lines, subset = [], scan.subset
    if scan.without_caption:
        instead = f'"{subset.class_tokens}"' if subset.class_tokens else "an empty caption"
        lines.append(f"{subset.source}: {scan.without_caption} images without a caption train with {instead}")
    if scan.empty_captions:
        lines.append(f"{subset.source}: {scan.empty_captions} captions are empty")
    return lines


def _cut_off(record: Record) -> float:
    """The share of the resized image outside the crop."""
    (width, height), (resized_width, resized_height) = record.fit.bucket, record.fit.resized
    return 1 - width * height / (resized_width * resized_height)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _names(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _bucket_mode(spec: DatasetSpec) -> str:
    if not spec.enable_bucket:
        return "no buckets: images are cropped to the resolution"
    if spec.bucket_no_upscale:
        return f"buckets in steps of {spec.bucket_reso_steps}, nothing is enlarged"
    limits = f"{spec.min_bucket_reso} to {spec.max_bucket_reso} in steps of {spec.bucket_reso_steps}"
    return f"buckets from {limits}"
