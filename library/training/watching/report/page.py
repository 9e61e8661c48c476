"""The report's page: how a run is doing, in one self-contained HTML file without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.options.config_file import to_toml
from library.pages.document import document
from library.pages.figures import number
from library.pages.markup import Html, element, join
from library.training.batches import BatchSource
from library.training.optimization.ledger import Balance, figure, percent
from library.training.watching.report.charts import Line, chart, short
from library.training.watching.report.history import ERROR, LOSS, VALIDATION, History, Point, smoothed
from library.training.watching.report.times import times
from library.wording import counted

HERE = Path(__file__).parent
MOST_WARNINGS = 200
_SHOWN = {LOSS, VALIDATION, ERROR}


@dataclass(frozen=True, kw_only=True)
class About:
    """What does not change during a run.

    title: the output name.
    script: the trainer's file name.
    model: the base name of the model that is trained.
    last_step: steps done at the end.
    steps_per_epoch: optimizer steps.
    options: by section, those that differ from their defaults, without secrets and whole paths.
    data: what it is trained on.
    """

    title: str
    script: str
    model: str
    last_step: int
    steps_per_epoch: int
    options: Mapping[str, Mapping[str, Any]]
    batches: BatchSource


@dataclass(frozen=True)
class Now:
    """How far the run has come.

    step: steps done.
    is_running: whether more steps follow.
    written: the date and time of the page.
    balance: what was trained, at the end of the run.
    warnings: so far.
    seconds: that each part of this start of the run took.
    """

    step: int
    is_running: bool
    written: str
    balance: Balance | None = None
    warnings: Sequence[str] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


def render(about: About, history: History, now: Now) -> str:
    """The page as HTML."""
    return document(
        about.title, _head(about, history, now), _sections(about, history, now), HERE / "report.css"
    )


def _sections(about: About, history: History, now: Now) -> dict[str, Html | None]:
    return {
        "Curves": _curves(history),
        "Previews": _previews(history),
        "Ledger": _ledger(now.balance),
        "Time": times(now.seconds),
        "Dataset": about.batches.report_section(),
        "Warnings": _warnings(now.warnings),
        "Settings": _settings(about.options),
        "Rerun": _rerun(about),
    }


def _head(about: About, history: History, now: Now) -> Html:
    epoch, epochs = -(-now.step // about.steps_per_epoch), -(-about.last_step // about.steps_per_epoch)
    if now.is_running:
        status = "running"
    else:
        status = "done" if now.step >= about.last_step else "ended early"
    place = f"step {number(now.step)} of {number(about.last_step)}, epoch {max(1, epoch)} of {epochs}"
    figures = [
        ("steps", number(now.step)),
        *_last_figures(history),
        *about.batches.report_figures(),
    ]
    return element(
        "header",
        element("h1", about.title),
        element("p", element("span", status, class_="status"), f" {place}; written {now.written}"),
        element("p", f"{about.script} on {about.model}"),
        element(
            "dl",
            [element("div", element("dt", name), element("dd", value)) for name, value in figures],
            class_="numbers",
        ),
    )


def _last_figures(history: History) -> list[tuple[str, str]]:
    figures = []
    if loss := history.curves.get(LOSS):
        figures.append(("loss, smoothed", f"{smoothed(loss)[-1][1]:.4f}"))
    if validation := history.curves.get(VALIDATION):
        step, lowest = min(validation, key=lambda point: point[1])
        figures.append((f"lowest validation loss, step {number(step)}", f"{lowest:.4f}"))
    return figures


def _curves(history: History) -> Html | None:
    charts = [_loss(history), _validation(history), _rates(history), *_others(history)]
    made = [one for one in charts if one is not None]
    return element("div", made, class_="charts") if made else element("p", "No figures yet.", class_="soft")


def _loss(history: History) -> Html | None:
    points = history.curves.get(LOSS)
    if not points:
        return None
    lines = [Line(points, "each step", "raw"), Line(smoothed(points), "smoothed")]
    return element("div", chart("Loss", lines), class_="wide")


def _validation(history: History) -> Html | None:
    points, errors = history.curves.get(VALIDATION), dict(history.curves.get(ERROR, ()))
    if not points:
        return None
    line = Line(points, errors=[errors.get(step, 0.0) for step, _ in points])
    return chart("Validation loss", [line], note="with its standard error")


def _rates(history: History) -> Html | None:
    """Learning rates; equal ones share a line."""
    lines: dict[tuple[Point, ...], list[str]] = {}
    for name, points in history.curves.items():
        if name.startswith("lr/"):
            lines.setdefault(tuple(points), []).append(name.removeprefix("lr/"))
    if not lines:
        return None
    drawn = [
        Line(points, ", ".join(names), f"line-{i % 4 + 1}") for i, (points, names) in enumerate(lines.items())
    ]
    return chart("Learning rate", drawn, from_zero=True)


def _others(history: History) -> list[Html]:
    """Charts of all other figures."""
    names = [name for name in history.curves if name not in _SHOWN and not name.startswith("lr/")]
    return [
        chart(
            name,
            [
                Line(history.curves[name], "each step", "raw"),
                Line(smoothed(history.curves[name]), "smoothed"),
            ],
        )
        for name in names
    ]


def _previews(history: History) -> Html | None:
    """Each prompt's pictures from the first to the latest."""
    films: dict[tuple[int, str], list[tuple[int, str]]] = {}
    for moment in history.moments:
        for number_, prompt, url in moment.pictures:
            films.setdefault((number_, prompt), []).append((moment.step, url))
    return join([_film(prompt, shots) for (_, prompt), shots in sorted(films.items())]) or None


def _film(prompt: str, shots: Sequence[tuple[int, str]]) -> Html:
    figures = [
        element(
            "figure",
            element("img", src=url, alt=f"step {step}: {prompt}", decoding="async"),
            element("figcaption", f"step {number(step)}" if step else "before training"),
        )
        for step, url in shots
    ]
    # Focusable, so that it can be scrolled with the keyboard.
    row = element(
        "div", figures, class_="film", tabindex="0", role="group", aria_label=f"Previews of {prompt}"
    )
    return join([element("p", prompt or "(no prompt)", class_="prompt"), row])


def _ledger(balance: Balance | None) -> Html | None:
    """How far each trained part moved."""
    if balance is None:
        return None
    head = ("part", "parameters", "moved", "gradient")
    rows = [
        (entry.part, number(entry.parameters), percent(entry.moved), figure(entry.gradient))
        for entry in balance.entries
    ]
    cells = [
        element(
            "tr",
            [
                element("td", cell, class_="n" if i else None, data_label=head[i])
                for i, cell in enumerate(row)
            ],
        )
        for row in rows
    ]
    names = [element("th", name, class_="n" if i else None, scope="col") for i, name in enumerate(head)]
    note = (
        f"From step {number(balance.since)} to {number(balance.until)}: how far each part moved, as a share "
        "of its size at the start, and the mean norm of its gradients."
    )
    table = element(
        "table", element("thead", element("tr", names)), element("tbody", cells), class_="stacked"
    )
    return join([element("p", note, class_="soft"), table])


def _warnings(warnings: Sequence[str]) -> Html | None:
    if not warnings:
        return None
    shown = list(warnings[:MOST_WARNINGS])
    if len(warnings) > len(shown):
        shown.append(f"and {len(warnings) - len(shown)} more")
    return element("ul", [element("li", line, class_="warn") for line in shown], class_="list")


def _settings(options: Mapping[str, Mapping[str, Any]]) -> Html:
    rows = [
        element("tr", element("td", name), element("td", _word(value)))
        for section in options.values()
        for name, value in section.items()
    ]
    intro = f"{counted(len(rows), 'setting differs', 'settings differ')} from the defaults."
    return join(
        [
            element("p", intro, class_="soft"),
            element("div", element("table", element("tbody", rows), class_="settings"), class_="scroll"),
        ]
    )


def _rerun(about: About) -> Html:
    name = f"{about.title}.toml"
    return join(
        [
            element("p", "Save this as ", element("b", name), ", put the folders before the names, and run"),
            element("pre", f"accelerate launch {about.script} --config_file {name}"),
            element("pre", to_toml(about.options).strip()),
        ]
    )


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return short(value)
    return ", ".join(map(_word, value)) if isinstance(value, (list, tuple)) else str(value)
