"""What stands on the dataset page: its head and its sections in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
from library.pages.document import document
from library.pages.figures import number
from library.pages.markup import Html, element
from library.problems import Problem


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All that the page shows.

    data: None when there is nothing to train on.
    texts: of every training image.
    walls: the buckets that are trained on.
    held_out: the buckets of validation.
    resemblances: pictures that look alike; None when they were not compared.
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
    """The page as HTML."""
    return document(contents.title, _head(contents), _sections(contents))


def _sections(contents: Contents) -> dict[str, Html | None]:
    data, look = contents.data, contents.look
    sections: dict[str, Html | None] = {
        "Findings": findings(contents.problems, contents.warnings, contents.findings)
    }
    if data is not None:
        sections |= {
            "Sources": sources(data),
            "Buckets": buckets(contents.walls, len(data.datasets)),
            "Captions": captions(contents.texts, look.max_tokens),
            "Tags": tags(contents.texts),
            "Look-alikes": lookalikes(contents.resemblances),
            "Pictures": walls(contents.walls, len(data.datasets), look),
            "Held out": walls(contents.held_out, len(data.datasets), look, is_held_out=True),
        }
    return sections


def _head(contents: Contents) -> Html:
    return element(
        "header",
        element("h1", contents.title),
        element("p", "What the model will see: pictures as they are cropped, captions as they are read."),
        element("dl", [_figure(*figure) for figure in _figures(contents)], class_="numbers"),
    )


def _figures(contents: Contents) -> list[tuple[str, int, str | None]]:
    """The numbers at the top: (name, value, CSS class). Zeros are left out."""
    data = contents.data
    figures: list[tuple[str, int, str | None]] = [
        ("problems", len(contents.problems), "bad"),
        ("warnings", len(contents.warnings), "warn"),
    ]
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
