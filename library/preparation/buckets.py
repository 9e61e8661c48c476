"""Buckets and latents of pictures, before they are trained on with metadata."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from library.console import say
from library.data.buckets import aspect_error, size_text
from library.data.pictures.integrity import look_at
from library.data.scan.records import Record
from library.options.bucket_tools import BucketOptions
from library.preparation.metadata_files import Metadata, check_target, key_of, read_metadata, replace_metadata
from library.preparation.pictures import find_pictures
from library.problems import Problems
from library.training.start.caching_runs import LatentCachingRun
from library.training.start.command import begin
from library.wording import columns, counted


def prepare_buckets(options: BucketOptions) -> Problems:
    """Write latents beside the pictures, and metadata with their sizes, so that a training with the same
    options makes none. Returns the problems of pictures that cannot be used.

    Raises UserError when nothing could be done.
    """
    check_target(options.out_json)
    pictures = find_pictures(options.train_data_dir, recursive=options.recursive)
    metadata = read_metadata(options.in_json, may_be_empty=True)
    problems = Problems()
    usable = [picture for picture in pictures if problems.attempt(look_at, picture) is not None]
    if not usable:
        problems.raise_if_any()
    records = _cache(usable, options)
    for picture in usable:
        if (record := records.get(picture.absolute())) is not None:
            key = key_of(picture, full_path=options.full_path)
            sizes = {"image_size": list(record.size), "train_resolution": list(record.fit.bucket)}
            metadata[key] = metadata.get(key, {}) | sizes
    _write(metadata, options)
    _tell(records.values())
    return problems


def _cache(pictures: Iterable[Path], options: BucketOptions) -> Mapping[Path, Record]:
    """Fill the caches as a training does; what it knows of each picture."""
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder) / "pictures.json"  # captions do not matter to latents
        listing.write_text(json.dumps({str(picture.absolute()): {"caption": "a"} for picture in pictures}))
        words = ["--train_data_dir", str(options.train_data_dir), "--in_json", str(listing)]
        words += ["--output_dir", folder, "--on_bad_image", "skip", *options.training_words]
        run, found = begin(LatentCachingRun, None, argv=words)

        from library.training.start.caching_alone import fill_caches_alone

        fill_caches_alone(run, found)
    return {record.image.absolute(): record for record in found.data.records}


def _write(metadata: Metadata, options: BucketOptions) -> None:
    kept = replace_metadata(options.out_json, metadata)
    say(f"{counted(len(metadata), 'entry', 'entries')} in {options.out_json}{kept}")


def _tell(records: Iterable[Record]) -> None:
    """Say how many pictures are in each bucket, and how far these are from the pictures' aspect ratios."""
    records = list(records)
    counts = Counter(record.fit.bucket for record in records)
    rows = [(f"  {size_text(bucket)}", counted(count, "picture")) for bucket, count in sorted(counts.items())]
    for line in ("buckets:", *columns(rows, right=(1,))):
        say(line)
    errors = [abs(aspect_error(record.fit.bucket, record.size)) for record in records]
    say(f"mean aspect ratio error: {sum(errors) / len(errors):.4f}")
