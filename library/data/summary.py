"""What the data is, and what about it the user may not expect, in lines for the console."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from library.data.buckets import size_text
from library.data.config.specs import DatasetSpec
from library.data.scan.folders import name_some
from library.data.scan.records import Record, SubsetScan
from library.data.training_data import Dataset, TrainingData
from library.wording import counted, plural


def summary_lines(data: TrainingData) -> list[str]:
    """What there is to train on."""
    lines = []
    for number, dataset in enumerate(data.datasets, 1):
        first, *rest = dataset_lines(dataset)
        lines += [f"dataset {number}: {first}", *rest]
    return lines


def warning_lines(data: TrainingData) -> list[str]:
    """What the user may not expect, each thing once."""
    lines = [line for dataset in data.datasets for line in _unexpected(dataset)]
    return list(dict.fromkeys(lines + _leaks(data)))


def dataset_lines(dataset: Dataset) -> list[str]:
    """What a dataset holds; the first line has its resolution, batch size and buckets."""
    spec = dataset.spec
    lines = [f"resolution {size_text(spec.resolution)}, batch size {spec.batch_size}, {_bucket_mode(spec)}"]
    for scan in dataset.scans:
        subset = scan.subset
        images = counted(len(scan.records), "regularization image" if subset.is_reg else "image")
        tokens = f', "{subset.class_tokens}"' if subset.class_tokens else ""
        lines.append(f"  {subset.source}: {images} x {subset.num_repeats}{tokens}")
    if spec.enable_bucket:
        counts = dataset.bucket_counts().items()
        lines.append("  buckets: " + ", ".join(f"{size_text(size)} ({count})" for size, count in counts))
    reg = f" and {counted(dataset.reg_count, 'regularization sample')}" if dataset.reg_count else ""
    lines.append(f"  {counted(dataset.train_count, 'training sample')}{reg} per epoch")
    if dataset.held_out:
        held_out = counted(dataset.held_out, "image is", "images are")
        lines.append(f"  {held_out} held out for validation")
    return lines


def _unexpected(dataset: Dataset) -> list[str]:
    """What the user may not expect of a dataset."""
    lines = [line for scan in dataset.scans for line in _about_scan(scan)]
    if dataset.dropped_reg:
        unused = counted(dataset.dropped_reg, "regularization sample is", "regularization samples are")
        there = plural(dataset.train_count, "is", "are")
        train = counted(dataset.train_count, "training sample")
        lines.append(f"{unused} not used: there {there} only {train}")
    if dataset.spec.validation_split and not dataset.held_out:
        lines.append(f"validation_split {dataset.spec.validation_split} holds out nothing: too few images")
    return lines + _small_buckets(dataset) + _odd_shapes(dataset.records)


def _leaks(data: TrainingData) -> list[str]:
    """A line about held-out images that another dataset trains on."""
    trained = {record.image for record in data.records}
    held_out = data.validation.records if data.validation else []
    both = list(dict.fromkeys(record.image.name for record in held_out if record.image in trained))
    if not both:
        return []
    return [f"{len(both)} held-out images are trained on in another dataset: {name_some(both)}"]


def _about_scan(scan: SubsetScan) -> list[str]:
    lines, subset = [], scan.subset
    if scan.bad_images:
        causes = name_some([f"{problem.where} {problem.cause}" for problem in scan.bad_images])
        bad = counted(len(scan.bad_images), "bad image is", "bad images are")
        lines.append(f"{subset.source}: {bad} left out: {causes}")
    if scan.without_caption:
        instead = f'"{subset.class_tokens}"' if subset.class_tokens else "an empty caption"
        bare = counted(
            scan.without_caption, "image without a caption trains", "images without a caption train"
        )
        lines.append(f"{subset.source}: {bare} with {instead}")
    if scan.empty_captions:
        lines.append(f"{subset.source}: {counted(scan.empty_captions, 'caption is', 'captions are')} empty")
    if scan.animated:
        has = counted(len(scan.animated), "image has", "images have")
        lines.append(
            f"{subset.source}: {has} several frames or pages, of which the first is trained:"
            f" {name_some(scan.animated)}"
        )
    if scan.cut_captions:
        cut = counted(scan.cut_captions, "caption has", "captions have")
        fix = "--enable_wildcard draws one of them"
        lines.append(f"{subset.source}: {cut} several lines, of which the first is used; {fix}")
    return lines + scan.notes


def _small_buckets(dataset: Dataset) -> list[str]:
    batch = dataset.spec.batch_size
    small = [size_text(size) for size, count in dataset.bucket_counts().items() if count < batch]
    return [f"buckets with fewer samples than a batch of {batch}: {name_some(small)}"] if small else []


def _odd_shapes(records: list[Record]) -> list[str]:
    lines = []
    for kind, found in odd_shapes(records).items():
        names = name_some([record.image.name for record, _ in found])
        lines.append(f"{counted(len(found), 'image is', 'images are')} {kind}: {names}")
    return lines


def _bucket_mode(spec: DatasetSpec) -> str:
    if not spec.enable_bucket:
        return "no buckets: images are cropped to the resolution"
    if spec.bucket_no_upscale:
        return f"buckets in steps of {spec.bucket_reso_steps}, nothing is enlarged"
    limits = f"{spec.min_bucket_reso} to {spec.max_bucket_reso} in steps of {spec.bucket_reso_steps}"
    return f"buckets from {limits}"


def odd_shapes(records: Iterable[Record]) -> dict[str, list[tuple[Record, str]]]:
    """Images whose shape or size is most likely a mistake, by kind (see `ODD_SHAPES`), each with its figures;
    the worst first. Kinds without images are left out.
    """
    records = list(records)
    found = {kind: shape.find(records) for kind, shape in ODD_SHAPES.items()}
    return {kind: odd for kind, odd in found.items() if odd}


@dataclass(frozen=True)
class OddShape:
    """A way in which an image's shape or size may be odd.

    measure: how odd an image is; odd above `limit`.
    describe: an image's figures in words.
    """

    measure: Callable[[Record], float]
    limit: float
    describe: Callable[[Record, float], str]

    def find(self, records: Iterable[Record]) -> list[tuple[Record, str]]:
        """The odd ones, the worst first."""
        measured = [(self.measure(record), record) for record in records]
        odd = sorted((pair for pair in measured if pair[0] > self.limit), key=lambda pair: -pair[0])
        return [(record, self.describe(record, value)) for value, record in odd]


def cut_off(record: Record) -> float:
    """The share of the resized image outside the crop."""
    (width, height), (resized_width, resized_height) = record.fit.bucket, record.fit.resized
    return 1 - width * height / (resized_width * resized_height)


def enlargement(record: Record) -> float:
    """How many times wider the image becomes."""
    return record.fit.resized[0] / record.size[0]


ODD_SHAPES = {
    "more than four times as long as wide": OddShape(
        lambda record: max(record.size) / min(record.size),
        4,
        lambda record, aspect: f"{size_text(record.size)}, {aspect:.1f} to 1",
    ),
    "enlarged more than three times": OddShape(
        enlargement, 3, lambda record, scale: f"{size_text(record.size)}, {scale:.1f} times"
    ),
    "cropped by more than half": OddShape(
        cut_off,
        0.5,
        lambda record, share: f"{size_text(record.size)} in {size_text(record.fit.bucket)}, {share:.0%} lost",
    ),
}
