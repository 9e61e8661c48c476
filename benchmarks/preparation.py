"""What tagging costs beside reading pictures and the model, and how fast metadata are merged and cleaned.

  python benchmarks/preparation.py            20,000 pictures, 100,000 entries
  python benchmarks/preparation.py 2000 10000

The tagger is a small graph with WD14's inputs (448 x 448). CPU seconds of this process, which count the same
whatever else the machine does; memory is the process' own, after a tenth of the pictures and at the end.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "examples" / "demo")]

from benchmarks.measuring import say  # noqa: E402

DIFFERENT = 200  # pictures that are drawn; the others are links to them


def main() -> None:
    counts = [int(word) for word in sys.argv[1:]] or [20_000, 100_000]
    with tempfile.TemporaryDirectory() as folder:
        tagging(Path(folder), counts[0])
        cleaning(Path(folder), counts[1])


def tagging(folder: Path, count: int) -> None:
    from commands import call
    from small_taggers import write_csv, write_tagger

    from finetune import tag_images_by_wd14_tagger
    from library.preparation.tagging import command
    from library.preparation.tagging.model import Tagger

    pictures, model = draw(folder / "pictures", count), write_csv(write_tagger(folder / "tagger"))
    spent, memory = {"reading": 0.0, "model": 0.0}, list[float]()

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*words: Any) -> Any:
            start = time.thread_time()  # others read meanwhile
            try:
                return work(*words)
            finally:
                spent[name] += time.thread_time() - start

        return wrapped

    def watched(work: Callable[..., Any]) -> Callable[..., Any]:
        seen = [0]

        def wrapped(*words: Any) -> Any:
            seen[0] += 1
            if seen[0] in (count // 10, count):
                memory.append(taken())
            return work(*words)

        return wrapped

    os.environ["OMP_NUM_THREADS"] = "1"  # so that the model's time is that of the thread that calls it
    command.read_picture = watched(timed("reading", command.read_picture))
    Tagger.probabilities = timed("model", Tagger.probabilities)  # type: ignore[method-assign]
    start = time.process_time()
    words = (pictures, "--repo_id", model, "--batch_size", 8, "--max_data_loader_n_workers", 0)
    call(tag_images_by_wd14_tagger.main, "tag_images_by_wd14_tagger.py", *words)
    whole = time.process_time() - start
    beside = whole - sum(spent.values())
    assert len(list(pictures.glob("*.txt"))) == count
    say(
        "tagging",
        pictures=count,
        seconds=whole,
        **spent,
        beside=beside / whole,
        memory_mb=memory[0],
        memory_at_the_end_mb=memory[-1],
    )


def draw(folder: Path, count: int) -> Path:
    from make_world import choose_scene, draw

    from library.randomness import keyed_random

    folder.mkdir()
    for number in range(count):
        path = folder / f"{number:06}.png"
        if number < DIFFERENT:
            random = keyed_random(1, "preparation", number)
            draw(choose_scene(random), random).save(path)
        else:
            os.link(folder / f"{number % DIFFERENT:06}.png", path)
    return folder


def taken() -> float:
    """The process' own memory in megabytes."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    found = re.search(r"VmRSS:\s+(\d+)", status.read_text())
    return int(found[1]) / 1024 if found else float("nan")


def cleaning(folder: Path, count: int) -> None:
    """Merging captions of files into metadata, and cleaning metadata of as many entries."""
    from commands import call

    from finetune import clean_captions_and_tags, merge_captions_to_metadata

    texts = folder / "texts"
    shutil.rmtree(folder / "pictures")
    texts.mkdir()
    for number in range(count):
        path = texts / f"{number:06}.png"
        path.touch()  # only names are looked at
        path.with_suffix(".caption").write_text(f"a girl with {number} cats on a blue background\n")
    start = time.process_time()
    words = (texts, folder / "merged.json")
    call(merge_captions_to_metadata.main, "merge_captions_to_metadata.py", *words)
    merged = time.process_time() - start
    entries = {
        f"{number:06}": {
            "caption": f"an anime girl with {number} cats, anime",
            "tags": "1girl, long_hair, very long hair, multiple girls, solo, blue_background, cat ears",
        }
        for number in range(count)
    }
    (folder / "tags.json").write_text(json.dumps(entries))
    start = time.process_time()
    words = (folder / "tags.json", folder / "cleaned.json")
    call(clean_captions_and_tags.main, "clean_captions_and_tags.py", *words)
    say("metadata", entries=count, merging=merged, cleaning=time.process_time() - start)


if __name__ == "__main__":
    main()
