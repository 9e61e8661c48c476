"""A grid: pictures of all values of an axis or two, in one picture with labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

LONGEST = 8192  # pixels; cells are made smaller where a grid would be larger
_GAP = 6
_PAPER, _INK, _SOFT, _MISSING = "#fbfaf8", "#1d1d1b", "#5e5d58", "#e3e1db"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Rows = Sequence[Sequence[Image.Image | None]]


@dataclass(frozen=True)
class _Layout:
    """Where everything stands, in pixels.

    width, height: of a cell.
    share: what pictures are made smaller by.
    line: height of a line of text.
    left, heading, top: of the labels of rows, of the title, of title and labels of columns.
    """

    font: Font
    width: int
    height: int
    share: float
    line: int
    left: int
    heading: int
    top: int

    @classmethod
    def of(cls, pictures: Rows, across: Sequence[str], down: Sequence[str], title: str) -> _Layout:
        drawn = [picture for row in pictures for picture in row if picture is not None]
        width, height = (max((p.size[axis] for p in drawn), default=64) for axis in (0, 1))
        share = min(1.0, LONGEST / (width * len(across)), LONGEST / (height * len(pictures)))
        width, height = max(1, int(width * share)), max(1, int(height * share))
        font = ImageFont.load_default(max(13, min(36, height // 16)))
        line = round(font.getbbox("Ag")[3])
        labels = min(2 * width, max((_length(font, label) for label in down), default=0))
        heading = line + 2 * _GAP if title else 0
        top = heading + (line + 2 * _GAP if any(across) else 0)
        return cls(font, width, height, share, line, labels + 2 * _GAP if labels else 0, heading, top)

    def corner(self, column: int, row: int) -> tuple[int, int]:
        """The upper left of a cell."""
        step = (self.width + _GAP, self.height + _GAP)
        return self.left + column * step[0] + _GAP, self.top + row * step[1] + _GAP

    def shown(self, picture: Image.Image) -> Image.Image:
        """A picture in the size it has in the grid."""
        picture = picture.convert("RGB")
        if self.share == 1:
            return picture
        width, height = (max(1, int(side * self.share)) for side in picture.size)
        return picture.resize((width, height), Image.Resampling.LANCZOS)


def draw_grid(pictures: Rows, across: Sequence[str], down: Sequence[str], *, title: str = "") -> Image.Image:
    """The pictures, row by row, with labels above the columns and left of the rows, and a title above all.

    None stands for a picture that could not be drawn. Cells are as large as the largest picture, unless the
    whole would be longer than LONGEST.
    """
    layout = _Layout.of(pictures, across, down, title)
    sheet = Image.new("RGB", layout.corner(len(across), len(pictures)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    font = layout.font
    if title:
        pen.text((_GAP, _GAP), _fitted(font, title, sheet.width - 2 * _GAP), font=font, fill=_SOFT)
    for column, label in enumerate(across):
        text = _fitted(font, label, layout.width)
        middle = layout.corner(column, 0)[0] + (layout.width - _length(font, text)) / 2
        pen.text((middle, layout.heading + _GAP), text, font=font, fill=_INK)
    for row, cells in enumerate(pictures):
        y = layout.corner(0, row)[1]
        if layout.left:
            place = (_GAP, y + (layout.height - layout.line) / 2)
            pen.text(place, _fitted(font, down[row], layout.left - _GAP), font=font, fill=_INK)
        for column, picture in enumerate(cells):
            x, y = layout.corner(column, row)
            if picture is None:
                pen.rectangle((x, y, x + layout.width - 1, y + layout.height - 1), fill=_MISSING)
                continue
            shown = layout.shown(picture)
            inside = (layout.width - shown.width) // 2, (layout.height - shown.height) // 2
            sheet.paste(shown, (x + inside[0], y + inside[1]))
    return sheet


def _length(font: Font, text: str) -> int:
    return round(font.getbbox(text)[2]) if text else 0


def _fitted(font: Font, text: str, width: int) -> str:
    """A text, cut in its middle where it is wider than `width` pixels: saves differ at their ends."""
    if _length(font, text) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        end = (kept + 1) // 2
        cut = f"{text[: kept - end]}…{text[-end:]}"
        if _length(font, cut) <= width:
            return cut
    return "…"
