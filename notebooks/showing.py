"""Pictures and pages, shown below a cell."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from notebooks.files import PICTURES

_LARGEST_PAGE = 8 * 2**20  # bytes; the notebook's own file holds what it shows


def show_pictures(paths: Sequence[Path], captions: Sequence[str] = (), *, height: int = 160) -> None:
    """Pictures in a row that wraps, each with its caption below it, or with its name."""
    from IPython.display import HTML, display

    texts = captions or [path.stem for path in paths]
    figures = [_figure(path, text, height) for path, text in zip(paths, texts, strict=False)]
    display(HTML(f'<div style="display:flex;flex-wrap:wrap;gap:12px">{"".join(figures)}</div>'))


def show_page(path: Path, *, height: int = 480) -> None:
    """A page that needs no other file, in a frame; of a large one, where it is."""
    from IPython.display import display

    if path.stat().st_size > _LARGEST_PAGE:
        print(f"open {path} in a browser; it is too large to be shown here")
        return
    page = html.escape(path.read_text(encoding="utf-8"), quote=True)
    frame = f'<iframe srcdoc="{page}" width="99%" height="{height}" style="border:1px solid #ccc"></iframe>'
    display({"text/html": frame, "text/plain": str(path)}, raw=True)


def _figure(path: Path, text: str, height: int) -> str:
    kind = PICTURES[path.suffix.lower()]
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return (
        f'<figure style="margin:0;max-width:{2 * height}px"><img height="{height}"'
        f' src="data:image/{kind};base64,{data}"><figcaption>{html.escape(text)}</figcaption></figure>'
    )
