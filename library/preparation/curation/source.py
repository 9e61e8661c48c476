"""The pictures of a dataset (a folder, a dataset file or a metadata file), each with a name of its own."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from library.data.config.specs import DatasetSpec
from library.data.report.findings import every_record, file_name
from library.data.scan.folders import is_image_name
from library.data.scan.records import Record
from library.data.training_data import TrainingData
from library.latent_space import LatentSpace
from library.options.caching import CachingOptions
from library.options.curation import DatasetSourceOptions
from library.options.data import DataOptions
from library.problems import Problem, Problems, UserError
from library.table_files import parse_tables
from library.text_files import read_text

_DATASET_KEYS = {"datasets", "general", "subsets"}


@dataclass(frozen=True)
class Source:
    """A dataset.

    records: every picture once, by its name; regularization images and held-out ones too.
    specs: the dataset of each record.
    bad: pictures that cannot be used.
    """

    records: dict[str, Record]
    specs: dict[str, DatasetSpec]
    bad: tuple[Problem, ...]


def read_source(options: DatasetSourceOptions, latent_space: LatentSpace) -> Source:
    """The dataset that options name. Nothing is written beside its pictures.

    latent_space: whose multiples buckets are.
    Raises UserError with all that is wrong with it; pictures that cannot be used are in `Source.bad`.
    """
    problems = Problems()
    with tempfile.TemporaryDirectory() as folder:
        data = TrainingData.collect(
            _data_options(options, Path(folder)),
            CachingOptions(),
            problems,
            latent_space=latent_space,
            writes=False,
        )
    problems.raise_if_any()
    once: dict[Path, Record] = {}
    for record in every_record(data):
        once.setdefault(record.image, record)
    parts = [data] if data.validation is None else [data, data.validation]
    specs = {
        id(scan.subset): dataset.spec for part in parts for dataset in part.datasets for scan in dataset.scans
    }
    records = dict(zip(_names(list(once.values())), once.values(), strict=True))
    return Source(
        records, {name: specs[id(record.subset)] for name, record in records.items()}, tuple(data.bad_images)
    )


def _data_options(options: DatasetSourceOptions, folder: Path) -> DataOptions:
    source, train_data_dir, config = options.source, None, None
    if source.is_dir():
        if any(is_image_name(path.name) for path in source.iterdir()):
            config = _write_config(folder, {"image_dir": source})
        else:
            train_data_dir = source
    elif not source.exists():
        raise UserError.of(source, "there is no such file or folder")
    elif _is_dataset_file(source):
        config = source
    else:
        image_dir = options.image_dir or source.parent
        config = _write_config(folder, {"image_dir": image_dir, "metadata_file": source})
    return DataOptions(
        train_data_dir=train_data_dir,
        dataset_config=config,
        caption_extension=options.caption_extension,
        resolution=options.resolution,
        enable_bucket=True,
        min_bucket_reso=options.min_bucket_reso,
        max_bucket_reso=options.max_bucket_reso,
        bucket_reso_steps=options.bucket_reso_steps,
        bucket_no_upscale=options.bucket_no_upscale,
        on_bad_image="skip",
    )


def _is_dataset_file(path: Path) -> bool:
    if path.suffix.lower() != ".json":
        return path.suffix.lower() == ".toml"
    content = parse_tables(read_text(path), path)
    return isinstance(content, dict) and bool(_DATASET_KEYS & set(content))


def _write_config(folder: Path, subset: dict[str, Path]) -> Path:
    """A dataset file with one subset, in `folder`."""
    path = folder / "dataset.json"
    table = {key: str(value.absolute()) for key, value in subset.items()}
    path.write_text(json.dumps({"datasets": [{"subsets": [table]}]}), encoding="utf-8")
    return path


def _names(records: Sequence[Record]) -> list[str]:
    """The folder and name of each picture or, where two have the same, its whole path."""
    names = [file_name(record) for record in records]
    counts = Counter(names)
    return [
        name if counts[name] == 1 else record.image.absolute().as_posix()
        for name, record in zip(names, records, strict=True)
    ]
