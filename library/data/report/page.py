"""The page: its head, its sections in order, and the file they are put into."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from library.data.report.figures import number
from library.data.report.findings import Finding
from library.data.report.pictures import Resemblance, Wall
from library.data.report.sections import (
    buckets,
    captions,
    findings,
    lookalikes,
    sources,
    tags,
    walls,
)
from library.data.report.texts import Look, Texts
from library.data.training_data import TrainingData
from library.pages.markup import Html, element, join
from library.problems import Problem

HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All that the page shows.

    data: None when there is nothing to train on. texts: of every training image; walls, held_out: the buckets
    of training and of validation. resemblances: pictures that look alike, None when nobody looked.
    """

    title: str
    look: Look
    data: TrainingData | None = None
    texts: Sequence[Texts] = ()
    walls: Sequence[Wall] = ()
    held_out: Sequence[Wall] = ()
    problems: Sequence[Problem] = ()
    warnings: Sequence[str] = ()
    findings: Sequence[Finding] = ()
    resemblances: Sequence[Resemblance] | None = None


def render(contents: Contents) -> str:
    """The page as HTML. It needs no other file and no network, and runs no script."""
    sections = {name: made for name, made in _sections(contents).items() if made}
    links = [element("li", element("a", name, href=f"#{_anchor(name)}")) for name in sections]
    body = [
        _head(contents),
        element("nav", element("ul", links), aria_label="Sections"),
        element(
            "main",
            [
                element("section", element("h2", name, id=_anchor(name)), made)
                for name, made in sections.items()
            ],
        ),
    ]
    template = string.Template((HERE / "page.html").read_text(encoding="utf-8"))
    style = (HERE / "page.css").read_text(encoding="utf-8").strip()
    return template.substitute(title=join(contents.title), style=style, body="\n".join(body))


def _sections(contents: Contents) -> dict[str, Html | None]:
    """What is empty is left out."""
    data, look = contents.data, contents.look
    made = {"Findings": findings(contents.problems, contents.warnings, contents.findings)}
    if data is not None:
        made |= {
            "Sources": sources(data),
            "Buckets": buckets(contents.walls, len(data.datasets)),
            "Captions": captions(contents.texts, look.max_tokens),
            "Tags": tags(contents.texts),
            "Look-alikes": lookalikes(contents.resemblances),
            "Pictures": walls(contents.walls, len(data.datasets), look),
            "Held out": walls(contents.held_out, len(data.datasets), look, is_held_out=True),
        }
    return made


def _head(contents: Contents) -> Html:
    return element(
        "header",
        element("h1", contents.title),
        element("p", "What the model will see: pictures as they are cropped, captions as they are read."),
        element("dl", [_figure(*figure) for figure in _figures(contents)], class_="numbers"),
    )


def _figures(contents: Contents) -> list[tuple[str, int, str | None]]:
    """The numbers at the top: (name, value, CSS class)."""
    data, figures = contents.data, []
    if contents.problems:
        figures.append(("problems", len(contents.problems), "bad"))
    if contents.warnings:
        figures.append(("warnings", len(contents.warnings), "warn"))
    if data is not None:
        held_out = data.validation.image_count if data.validation else 0
        figures += [
            ("pictures", data.image_count, None),
            ("training samples per epoch", data.train_count, None),
            ("regularization samples", data.reg_count, None),
            ("buckets", len(data.buckets), None),
            ("held out", held_out, None),
        ]
    return [figure for figure in figures if figure[1]]


def _figure(name: str, value: int, kind: str | None) -> Html:
    return element("div", element("dt", name), element("dd", number(value)), class_=kind)


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")
