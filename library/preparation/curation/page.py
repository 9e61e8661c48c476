"""The page to look through a dataset: one HTML file, whole in itself, that shows what is in view only."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path

from library.files import whole_file
from library.pages.document import HERE as SHARED
from library.pages.markup import join
from library.preparation.curation.survey import Picture

HERE = Path(__file__).parent
# The kinds of flags, those that matter most first; the page lists and sorts by them.
KINDS = (
    "contradiction",
    "misspelt?",
    "look-alikes",
    "no caption",
    "over 225 tokens",
    "over 150 tokens",
    "over 75 tokens",
    "blurred",
    "compressed",
    "dark",
    "bright",
    "low contrast",
    "cropped",
    "enlarged",
    "rare tag",
)


def write_page(path: Path, title: str, pictures: Sequence[Picture]) -> None:
    """Write the page; equal pictures give an equal page. Raises NotWritten."""
    with whole_file(path) as temporary:
        temporary.write_bytes(render(title, pictures).encode(errors="replace"))


def render(title: str, pictures: Sequence[Picture]) -> str:
    """The page as HTML. title: of the dataset; decisions are remembered by it."""
    template = string.Template((HERE / "page.html").read_text(encoding="utf-8"))
    style = [(folder / name).read_text(encoding="utf-8") for folder, name in _STYLES]
    data = {"title": title, "kinds": KINDS, "pictures": [_row(picture) for picture in pictures]}
    # In a script element only "<" could end the data.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return template.substitute(
        title=join(title),
        style="\n".join(style).strip(),
        script=(HERE / "page.js").read_text(encoding="utf-8").strip(),
        data=text,
    )


_STYLES = ((SHARED, "page.css"), (HERE, "page.css"))


def _row(picture: Picture) -> dict[str, object]:
    record = picture.record
    row: dict[str, object] = {
        "name": picture.name,
        "digest": picture.digest,
        "src": picture.thumbnail,
        "size": record.size,
        "bucket": record.fit.bucket,
        "crop": [round(share, 4) for share in picture.crop],
        "caption": record.caption,
        "tags": picture.tags,
        "tokens": picture.tokens,
        "flags": {kind: picture.flags[kind] for kind in KINDS if kind in picture.flags},
        "repeats": record.subset.num_repeats,
    }
    if picture.alike:
        row["alike"] = picture.alike
    return row
