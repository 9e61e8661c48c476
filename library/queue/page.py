"""The queue's page: what ran, runs and waits, and how finished runs compare. One HTML file, no scripts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from library.files import whole_file
from library.pages.document import document
from library.pages.figures import counted, number
from library.pages.markup import Html, element, join
from library.queue.comparing import Finished, differing, finished_runs, report_of, shown, summary_of
from library.queue.folder import STATES, Entry, Queue
from library.queue.telling import duration, estimate, in_order, in_words

NAME = "queue.html"
MOST_ROWS = 15  # of a table that is not folded
MOST_PICTURED = 40  # runs whose pictures are shown
_STYLE = Path(__file__).with_name("queue.css")


def write_page(queue: Queue) -> Path:
    """Write the page into the queue's folder and return its path. Raises NotWritten."""
    path = queue.folder / NAME
    with whole_file(path, flush=False) as temporary:
        temporary.write_bytes(render(queue).encode(errors="replace"))
    return path


def render(queue: Queue) -> str:
    """The page as HTML."""
    entries, finished = queue.entries(), finished_runs(queue)
    groups = {
        "Running": ("running",),
        "Set aside": ("failed", "stopped"),
        "Waiting": ("waiting",),
    }
    sections: dict[str, Html | None] = {
        title: _table(queue, [entry for entry in entries if entry.state in states], entries)
        for title, states in groups.items()
    }
    sections["Done"] = _comparison(queue, finished)
    sections["Pictures"] = _pictures(finished)
    return document(f"Queue {queue.folder.name}", _head(queue, entries), sections, _STYLE)


def _head(queue: Queue, entries: Sequence[Entry]) -> Html:
    counts = {state: sum(entry.state == state for entry in entries) for state in STATES}
    figures = [
        element(
            "div",
            element("dt", state),
            element("dd", number(count)),
            class_="bad" if state == "failed" and count else None,
        )
        for state, count in counts.items()
        if count
    ]
    paused = queue.paused
    return element(
        "header",
        element("h1", f"Queue {queue.folder.name}"),
        element("p", f"as of {time.strftime('%Y-%m-%d %H:%M')}"),
        element("p", f"paused: {paused[0]}", class_="paused") if paused else None,
        element("dl", figures, class_="numbers") if figures else element("p", "The queue is empty."),
    )


def _table(queue: Queue, entries: Sequence[Entry], everyone: Sequence[Entry]) -> Html | None:
    """Runs that are not done, a row each."""
    if not entries:
        return None
    rows = [
        element(
            "tr",
            _cell("run", f"{entry.number}  {queue.known(entry.number).name}"),
            _cell("", _about(queue, entry, everyone)),
            _cell("", _links(queue, entry)),
        )
        for entry in in_order(queue, entries)
    ]
    shown, folded = (
        element("table", part, class_="stacked runs") for part in (rows[:MOST_ROWS], rows[MOST_ROWS:])
    )
    if len(rows) <= MOST_ROWS:
        return shown
    summary = element("summary", f"{len(rows) - MOST_ROWS} more")
    return join([shown, element("details", summary, folded)])


def _about(queue: Queue, entry: Entry, everyone: Sequence[Entry]) -> str:
    record = queue.record(entry.number)
    words: list[str] = [entry.state] if entry.state in ("failed", "stopped") else []
    if entry.state == "running":
        words.append(f"since {time.strftime('%Y-%m-%d %H:%M', time.localtime(record.started))}")
    if entry.state == "waiting" and (after := queue.known(entry.number).after):
        words.append(f"after run {', '.join(map(str, after))}")
    summary = summary_of(queue, entry.number)
    if summary.step:
        words.append(f"step {summary.step}")
    if entry.state in ("waiting", "running"):
        seconds = estimate(queue, entry.number, everyone)
        words.append(f"takes about {in_words(seconds)}" if seconds is not None else "time unknown")
    return ", ".join(words) + (f": {record.reason}" if record.reason else "")


def _comparison(queue: Queue, runs: Sequence[Finished]) -> Html | None:
    """Finished runs with the settings that differ, losses and times."""
    if not runs:
        return None
    names, more = differing(runs)
    has_validation = any(run.summary.lowest is not None for run in runs)
    heads = ["run", *(["lowest validation loss"] if has_validation else []), "loss", *names, "time"]
    rows = [_compared(queue, run, names, has_validation) for run in runs]
    notes = [f"{counted(more, 'more setting')} that differ are in the reports"] if more else []
    notes += ["the lowest validation loss first"] if has_validation else []
    return join(
        [
            element("p", "; ".join(notes), class_="soft") if notes else None,
            element(
                "div",
                element(
                    "table",
                    element("thead", element("tr", [element("th", name) for name in heads])),
                    element("tbody", rows),
                    class_="stacked compared",
                ),
                class_="scroll",
            ),
        ]
    )


def _compared(queue: Queue, run: Finished, names: Sequence[str], has_validation: bool) -> Html:
    summary, seconds = run.summary, duration(queue, run.number)
    lowest = "" if summary.lowest is None else f"{summary.lowest:.4f} at step {summary.lowest_step}"
    title = f"{run.number}  {run.added.name}"
    address = _address(queue, report_of(run.added))
    return element(
        "tr",
        _cell("run", element("a", title, href=address) if address else title),
        _cell("lowest validation loss", lowest) if has_validation else None,
        _cell("loss", "" if summary.loss is None else f"{summary.loss:.4f}"),
        [_cell(name, shown(run, name)) for name in names],
        _cell("time", in_words(seconds) if seconds is not None else "in parts"),
    )


def _pictures(runs: Sequence[Finished]) -> Html | None:
    """The last previews of finished runs, prompt by prompt."""
    drawn = [run for run in runs if run.summary.pictures]
    prompts: dict[tuple[int, str], list[Html]] = {}
    for run in drawn[:MOST_PICTURED]:
        for place, prompt, url in run.summary.pictures:
            caption = element("figcaption", f"{run.number}  {run.added.name}")
            image = element("img", src=url, alt=f"{prompt}, by {run.added.name}", loading="lazy")
            prompts.setdefault((place, prompt), []).append(element("figure", image, caption))
    if not prompts:
        return None
    left = len(drawn) - MOST_PICTURED
    note = (
        element("p", f"of the first {MOST_PICTURED} runs of the table", class_="soft") if left > 0 else None
    )
    blocks = [
        element("div", element("h3", prompt), element("div", figures, class_="beside"))
        for (_, prompt), figures in sorted(prompts.items(), key=lambda item: item[0])
    ]
    return join([note, blocks])


def _links(queue: Queue, entry: Entry) -> Html:
    folder = queue.run_folder(entry.number)
    places = {"report": report_of(queue.known(entry.number)), "log": folder / "log.txt"}
    links = [
        element("a", name, href=address)
        for name, path in places.items()
        if entry.state != "waiting" or name == "log"
        if (address := _address(queue, path))
    ]
    return join(list(_between(links, ", ")))


def _between(items: Sequence[Html], separator: str) -> Iterator[str]:
    for index, item in enumerate(items):
        if index:
            yield separator
        yield item


def _address(queue: Queue, path: Path) -> str | None:
    """A file as the page links to it; None if it is not there."""
    if not path.is_file():
        return None
    try:
        return quote(Path(os.path.relpath(path, queue.folder)).as_posix())
    except ValueError:  # on another drive
        return path.as_uri()


def _cell(label: str, content: Html | str) -> Html:
    return element("td", content, data_label=label)
