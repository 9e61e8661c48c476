"""The page of a queue: what it says of each run, its links, and the comparison of finished runs."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from PIL import Image

from library.pages.images import thumbnail
from library.queue.folder import Added, Entry, Queue, Record
from library.queue.page import render, write_page
from library.queued import SUMMARY


def make_run(queue: Queue, state: str, name: str, settings: dict[str, Any], **summary: Any) -> int:
    queue.make()
    number, folder = queue.new_folder()
    out = queue.folder.parent / "my out"
    out.mkdir(exist_ok=True)
    queue.write_added(
        number, Added(name, name, "train_network.py", None, 1, str(out), str(out), settings=settings)
    )
    queue.put(number)
    if state == "done":
        (out / f"{name}-report.html").touch()
        told = {"kind": "done", "try": 1, "time": 1090.0}
        (folder / "outcome.json").write_text(json.dumps(told))
        (folder / SUMMARY).write_text(json.dumps(summary))
    if state != "waiting":
        (folder / "log.txt").touch()
        queue.write_record(number, Record(tries=1, started=1000.0, reason=summary.get("reason", "")))
        queue.move(Entry(number, "waiting"), state, "gone" if state == "running" else "")
    return number


def picture(colour: str) -> str:
    return thumbnail(Image.new("RGB", (64, 64), colour), 64)[0]


def test_the_page_says_what_is_where_and_compares_what_is_done(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "night")
    for name, dim, lowest, colour in (("a", 8, 0.3, "red"), ("b", 16, 0.2, "blue"), ("c", 16, None, "green")):
        settings = {"network_dim": dim, "seed": 1, "output_name": name, "flip_aug": dim == 8}
        pictures = [[0, "a <cat>", picture(colour)]]
        figures = {"step": 9, "loss": 0.125, "lowest": lowest, "lowest_step": 6, "pictures": pictures}
        make_run(queue, "done", name, settings, **figures)
    make_run(queue, "failed", "d", {}, reason="--seed: is <wrong>")
    make_run(queue, "running", "e", {})
    make_run(queue, "waiting", "f", {})

    page = write_page(queue).read_text(encoding="utf-8")

    rows = [re.sub(r"\s+", " ", text_of(row)) for row in re.findall("<tr>(.*?)</tr>", page, re.DOTALL)]
    assert [row for row in rows if row.startswith(("4", "6"))] == [
        "4 d | failed: --seed: is <wrong> | log",
        "6 f | time unknown |",
    ]
    place = rows.index("run | lowest validation loss | loss | network_dim | flip_aug | time")
    assert rows[place + 1 :] == [
        "2 b | 0.2000 at step 6 | 0.1250 | 16 | off | 1 min 30 s",
        "1 a | 0.3000 at step 6 | 0.1250 | 8 | on | 1 min 30 s",
        "3 c | | 0.1250 | 16 | off | 1 min 30 s",
    ]
    links = re.findall(r'<a href="([^"#]+)"', page)
    assert links and all((queue.folder / unquote(unescape(link))).is_file() for link in links)
    assert "<script" not in page and "<cat>" not in page
    assert page.index(picture("blue")) < page.index(picture("red")) < page.index(picture("green"))


def test_the_page_of_an_empty_queue_and_of_a_broken_run(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "night")
    queue.make()
    assert "The queue is empty." in render(queue)
    number = make_run(queue, "failed", "a", {})
    (queue.run_folder(number) / "run.json").write_text("{")
    queue.pause("the disk is full", by_user=False)
    assert "paused: the disk is full" in render(queue)


def text_of(row: str) -> str:
    cells = re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
    return unescape(" | ".join(re.sub("<[^>]+>", "", cell) for cell in cells)).strip()
