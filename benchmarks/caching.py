"""What caching costs besides the VAE: with one that costs nothing, against bare decoding and resizing of the
same files in as many threads.
"""

from __future__ import annotations

import contextlib
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import in_turns, say, seconds  # noqa: E402

if TYPE_CHECKING:
    from library.data.training_data import TrainingData

PHOTO_SIZES = [(1200, 900), (1024, 1024), (1536, 1024), (1600, 1200)]  # 1.0 to 1.9 megapixels
PHOTOS, SMALL = 48, 4000


def main(folder: Path) -> None:
    """Images/s of photographs and of 64-pixel pictures, to memory and to disk, and of a check of entries that
    are all good.
    """
    photos = _data(folder / "photos", [_photo(number) for number in range(PHOTOS)], 512)
    small = _data(folder / "small", [_small(number) for number in range(SMALL)], 64)
    for name, data, target in (("photos", photos, {"target_ratio": 0.8}), ("small", small, {"target": 1000})):
        for place in ("memory", "disk"):
            _measure(f"caching_{name}_to_{place}", data, place == "disk", target)
    _measure_check(small)


def _measure(name: str, data: TrainingData, to_disk: bool, target: dict[str, float]) -> None:
    _cache(data, to_disk)
    ratio, raw, ours = in_turns(lambda: _decode(data), lambda: _cache(data, to_disk))
    count = len(data.records)
    rates = {"images_per_second": count / ours, "bare_decoding_images_per_second": count / raw}
    say(name, **rates, ratio=ratio, **target)


def _measure_check(data: TrainingData) -> None:
    _cache(data, to_disk=True)
    check = seconds(lambda: _call(data, to_disk=True))
    say("check_of_20000_cache_files", seconds=check * 20_000 / len(data.records), target_seconds=10)


def _cache(data: TrainingData, to_disk: bool) -> float:
    for path in {record.image.parent for record in data.records}:
        for entry in path.glob("*.npz"):
            entry.unlink()
    return seconds(lambda: _call(data, to_disk))


def _call(data: TrainingData, to_disk: bool) -> Any:
    from library.data.caches.latent_cache import cache_latents
    from library.data.caches.latent_files import LatentFiles
    from library.latent_space import LatentSpace

    disk = LatentFiles("_sd", "none", "float32") if to_disk else None
    with contextlib.redirect_stdout(io.StringIO()):
        return cache_latents(
            data,
            lambda pixels, noise: noise,
            latent_space=LatentSpace(4, 8, 8),
            batch_size=4,
            disk=disk,
            progress=False,
        )


def _decode(data: TrainingData) -> float:
    """Seconds to decode, resize and cut every picture, in as many threads as caching uses."""
    from library.data.caches.encoding import DECODERS
    from library.data.views import centre_view

    views = [centre_view(record, index=index) for index, record in enumerate(data.records)]

    def decode() -> None:
        with ThreadPoolExecutor(DECODERS) as pool:
            for _ in pool.map(lambda view: view.load()[0].shape, views):
                pass

    return seconds(decode)


def _photo(number: int) -> np.ndarray:
    """Soft shapes and film grain, which compress like a photograph: 0.3 to 0.6 bytes a pixel."""
    import cv2

    rng = np.random.default_rng(number)
    width, height = PHOTO_SIZES[number % len(PHOTO_SIZES)]
    picture = np.zeros((height, width, 3), np.float32)
    for cell in (256, 64, 16):
        coarse = rng.normal(0, 1, (height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        picture += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * cell**0.5 * 3
    grain = rng.normal(0, 5, (height, width, 1))
    return (picture + grain + 120).clip(0, 255).astype(np.uint8)


def _small(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)


def _data(folder: Path, pictures: list[np.ndarray], resolution: int) -> TrainingData:
    from PIL import Image

    from library.data.training_data import TrainingData
    from library.latent_space import LatentSpace
    from library.options.data import DataOptions

    (folder / "1_x").mkdir(parents=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / "1_x" / f"{number:05d}.jpg", quality=90)
    options = DataOptions(
        train_data_dir=folder, resolution=((resolution, resolution),), enable_bucket=True, min_bucket_reso=64
    )
    return TrainingData.scan(options, latent_space=LatentSpace(4, 8, 8))


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
