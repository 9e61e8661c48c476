"""How fast a folder is looked at: the first time, and again with the index of `--cache_info`.

python benchmarks/scan.py
"""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import in_turns, say, seconds  # noqa: E402

PICTURES = 20_000
SIDE = 64


def main(folder: Path) -> None:
    """First scan and re-scan of PNG and caption files: from memory, and with the files' content off it."""
    pictures = _pictures(folder / "scan" / "1_x")
    index = pictures / "metadata_cache.json"
    time.sleep(2.5)  # younger files are not trusted

    def first() -> float:
        index.unlink(missing_ok=True)
        return _scan(pictures, cache_info=True)

    def again() -> float:
        return _scan(pictures, cache_info=True)

    def bare() -> float:
        return seconds(lambda: _read_all(pictures))

    first()
    ratio, first_seconds, again_seconds = in_turns(first, again)
    _, plain_seconds, bare_seconds = in_turns(lambda: _scan(pictures), bare)
    say(
        "scan",
        images=PICTURES,
        without_index_seconds=plain_seconds,
        first_seconds=first_seconds,
        again_seconds=again_seconds,
        bare_open_and_read_seconds=bare_seconds,
        first_to_again=ratio,
        target_first_to_again=5,
    )
    if hasattr(os, "posix_fadvise"):
        os.sync()  # only what is on the disk can be dropped
        ratio, first_seconds, again_seconds = in_turns(
            lambda: _forget(pictures) or first(), lambda: _forget(pictures) or again()
        )
        say(
            "scan of files that are not in memory",
            images=PICTURES,
            first_seconds=first_seconds,
            again_seconds=again_seconds,
            first_to_again=ratio,
        )


def _scan(pictures: Path, *, cache_info: bool = False) -> float:
    from library.data.training_data import TrainingData
    from library.latent_space import LatentSpace
    from library.options.data import DataOptions

    options = DataOptions(
        train_data_dir=pictures.parent,
        resolution=((SIDE, SIDE),),
        caption_extension=".txt",
        cache_info=cache_info,
    )
    return seconds(lambda: TrainingData.scan(options, latent_space=LatentSpace(4, 8, 8)))


def _read_all(folder: Path) -> None:
    """What no first scan can do without: the start of every image and every caption."""
    for entry in os.scandir(folder):
        with io.FileIO(entry.path) as file:
            file.read(4096)


def _forget(folder: Path) -> None:
    """Ask the system to drop the files' content from memory. Their names, sizes and times may stay there."""
    for entry in os.scandir(folder):
        with io.FileIO(entry.path) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _pictures(folder: Path) -> Path:
    from PIL import Image

    folder.mkdir(parents=True)
    for number in range(PICTURES):
        Image.new("RGB", (SIDE, SIDE + number % 32), (number % 256, number // 256, 0)).save(
            folder / f"{number:05d}.png", compress_level=0
        )
        (folder / f"{number:05d}.txt").write_text(f"picture number {number}, red, green, blue, a caption")
    return folder


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
