"""Sheets: rows of labelled pictures, for people to look at."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

TILE, MARGIN, LINE = 144, 10, 11  # width of a picture, gaps, and height of a line of text, in pixels
_LETTERS = TILE // 6  # of a line below a picture


@dataclass(frozen=True)
class Row:
    """Pictures in a row.

    pictures: all of one size.
    labels: the text below each picture.
    title: above the row; "": none.
    """

    pictures: Sequence[Image.Image]
    labels: Sequence[str]
    title: str = ""


def labelled_sheet(rows: Sequence[Row]) -> Image.Image:
    """The rows one below the other on white, each picture TILE pixels wide."""
    width = MARGIN + max(len(row.pictures) for row in rows) * (TILE + MARGIN)
    sheet = Image.new("RGB", (width, MARGIN + sum(_height(row) for row in rows)), "white")
    top = MARGIN
    for row in rows:
        _paste(sheet, top, row)
        top += _height(row)
    return sheet


def _tile(row: Row) -> tuple[int, int]:
    width, height = row.pictures[0].size
    return TILE, round(TILE * height / width)


def _title(row: Row) -> int:
    return LINE + 4 if row.title else 0


def _height(row: Row) -> int:
    lines = max(len(textwrap.wrap(label, _LETTERS)) for label in row.labels)
    return _title(row) + _tile(row)[1] + lines * LINE + MARGIN


def _paste(sheet: Image.Image, top: int, row: Row) -> None:
    pen, tile = ImageDraw.Draw(sheet), _tile(row)
    pen.text((MARGIN, top), row.title, fill="black")
    for column, (picture, label) in enumerate(zip(row.pictures, row.labels, strict=True)):
        left, place = MARGIN + column * (TILE + MARGIN), top + _title(row)
        sheet.paste(picture.resize(tile, Image.Resampling.BICUBIC), (left, place))
        for number, line in enumerate(textwrap.wrap(label, _LETTERS)):
            pen.text((left, place + tile[1] + 1 + number * LINE), line, fill="#555555")
