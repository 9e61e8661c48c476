"""Small image folders and settings for the tests of library/data."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from stand_ins import LATENTS

from library.data.config.datasets import read_datasets
from library.data.config.specs import DatasetSpec, SubsetSpec
from library.data.training_data import TrainingData
from library.options.data import DataOptions, read_resolutions

SaveImage = Callable[..., Path]


@pytest.fixture
def save_image(tmp_path: Path) -> SaveImage:
    """save_image("10_cat/a.png", (64, 48), caption="a cat") under tmp_path; every image its own colour."""
    count = 0

    def save(name: str, size: tuple[int, int] = (64, 64), *, caption: str | None = None, **options) -> Path:
        nonlocal count
        count += 1
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = (count * 37 % 256, count * 91 % 256, count * 53 % 256)
        Image.new("RGB", size, colour).save(path, **options)
        if caption is not None:
            path.with_suffix(".caption").write_text(caption, encoding="utf-8")
        return path

    return save


@pytest.fixture
def scan(tmp_path: Path) -> Callable[..., TrainingData]:
    """scan(flip_aug=True, ...) of the class folders in tmp_path/train, at 64 pixels unless told."""

    def scan_with(**options) -> TrainingData:
        if "dataset_config" not in options:
            options.setdefault("train_data_dir", tmp_path / "train")
            options.setdefault("resolution", 64)
        if "resolution" in options:
            options["resolution"] = read_resolutions(options["resolution"])
        return TrainingData.scan(DataOptions(**options), latent_space=LATENTS)

    return scan_with


@pytest.fixture
def subset(tmp_path: Path) -> Callable[..., SubsetSpec]:
    """subset(shuffle_caption=True, ...): the settings of a subset."""
    (tmp_path / "settings" / "1_x").mkdir(parents=True)

    def make(**options) -> SubsetSpec:
        options = DataOptions(train_data_dir=tmp_path / "settings", resolution=((64, 64),), **options)
        return read_datasets(options, pixel_multiple=8)[0].subsets[0]

    return make


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., list[DatasetSpec]]:
    """read(text or tables, option=value, ...) -> the datasets of a dataset file."""

    def read_content(content, name="data.toml", **options):
        is_text = isinstance(content, str)
        path = tmp_path / (name if is_text else "data.json")
        path.write_text(content if is_text else json.dumps(content), encoding="utf-8")
        return read_datasets(DataOptions(dataset_config=path, **options), pixel_multiple=8)

    return read_content
