"""What a dataset is, and what about it its user may not expect, in lines for the console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from library.data.buckets import Size
from library.data.config.specs import DatasetSpec
from library.data.scan.folders import name_some
from library.data.scan.records import Record, SubsetScan

if TYPE_CHECKING:
    from library.data.training_data import Dataset

# An image enlarged more than this, or with more than this share cut off, is most likely there by mistake.
LARGE_ENLARGEMENT = 3.0
LARGE_CUT = 0.5
LARGE_ASPECT = 4.0


def summarize(dataset: Dataset) -> list[str]:
    """What is in it; the first line is its size."""
    spec = dataset.spec
    lines = [f"resolution {_size(spec.resolution)}, batch size {spec.batch_size}, {_bucket_mode(spec)}"]
    for scan in dataset.scans:
        subset = scan.subset
        kind = "regularization images" if subset.is_reg else "images"
        tokens = f', "{subset.class_tokens}"' if subset.class_tokens else ""
        lines.append(f"  {subset.source}: {len(scan.records)} {kind} x {subset.num_repeats}{tokens}")
    if spec.enable_bucket:
        counts = dataset.bucket_counts().items()
        lines.append("  buckets: " + ", ".join(f"{_size(size)} ({count})" for size, count in counts))
    reg = f" and {dataset.reg_count} regularization samples" if dataset.reg_count else ""
    lines.append(f"  {dataset.train_count} training samples{reg} per epoch")
    if dataset.held_out:
        lines.append(f"  {dataset.held_out} images are held out for validation")
    return lines


def unexpected(dataset: Dataset) -> list[str]:
    """What its user may not expect."""
    lines = [line for scan in dataset.scans for line in _about_scan(scan)]
    if dataset.dropped_reg:
        lines.append(
            f"{dataset.dropped_reg} regularization samples are not used: there are only {dataset.train_count}"
            " training samples"
        )
    if dataset.spec.validation_split and not dataset.held_out:
        lines.append(f"validation_split {dataset.spec.validation_split} holds out nothing: too few images")
    return lines + _small_buckets(dataset) + _odd_shapes(dataset.records)


def _about_scan(scan: SubsetScan) -> list[str]:
    lines, subset = [], scan.subset
    if scan.bad_images:
        causes = name_some([f"{problem.where} {problem.cause}" for problem in scan.bad_images])
        lines.append(f"{subset.source}: {len(scan.bad_images)} bad images are left out: {causes}")
    if scan.without_caption:
        instead = f'"{subset.class_tokens}"' if subset.class_tokens else "an empty caption"
        lines.append(f"{subset.source}: {scan.without_caption} images without a caption train with {instead}")
    if scan.empty_captions:
        lines.append(f"{subset.source}: {scan.empty_captions} captions are empty")
    return lines + scan.notes


def _small_buckets(dataset: Dataset) -> list[str]:
    batch = dataset.spec.batch_size
    small = [_size(size) for size, count in dataset.bucket_counts().items() if count < batch]
    return [f"buckets with fewer samples than a batch of {batch}: {name_some(small)}"] if small else []


def _odd_shapes(records: list[Record]) -> list[str]:
    thin = [r.image.name for r in records if max(r.size) > LARGE_ASPECT * min(r.size)]
    enlarged = [r.image.name for r in records if r.fit.resized[0] > r.size[0] * LARGE_ENLARGEMENT]
    cut = [r.image.name for r in records if cut_off(r) > LARGE_CUT]
    lines = []
    if thin:
        lines.append(f"{len(thin)} images are more than four times as long as wide: {name_some(thin)}")
    if enlarged:
        lines.append(f"{len(enlarged)} images are enlarged more than three times: {name_some(enlarged)}")
    if cut:
        lines.append(f"{len(cut)} images lose more than half of their area to the crop: {name_some(cut)}")
    return lines


def cut_off(record: Record) -> float:
    """The share of the resized image outside the crop."""
    (width, height), (resized_width, resized_height) = record.fit.bucket, record.fit.resized
    return 1 - width * height / (resized_width * resized_height)


def _size(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _bucket_mode(spec: DatasetSpec) -> str:
    if not spec.enable_bucket:
        return "no buckets: images are cropped to the resolution"
    if spec.bucket_no_upscale:
        return f"buckets in steps of {spec.bucket_reso_steps}, nothing is enlarged"
    limits = f"{spec.min_bucket_reso} to {spec.max_bucket_reso} in steps of {spec.bucket_reso_steps}"
    return f"buckets from {limits}"
