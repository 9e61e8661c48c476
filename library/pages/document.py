"""A whole page: a head, links to its sections, the sections, and all styles in the one file."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path

from library.pages.markup import Html, element, join

HERE = Path(__file__).parent


def document(title: str, head: Html, sections: Mapping[str, Html | None], *styles: Path) -> str:
    """The page as HTML. It needs no other file and no network, and runs no script.

    sections: by their headings; empty ones are left out.
    styles: CSS files beside the one that all pages have.
    """
    made = {name: content for name, content in sections.items() if content}
    links = [element("li", element("a", name, href=f"#{_anchor(name)}")) for name in made]
    body = [
        head,
        element("nav", element("ul", links), aria_label="Sections"),
        element(
            "main",
            [
                element("section", element("h2", name, id=_anchor(name)), content)
                for name, content in made.items()
            ],
        ),
    ]
    template = string.Template((HERE / "page.html").read_text(encoding="utf-8"))
    style = "\n".join(path.read_text(encoding="utf-8") for path in (HERE / "page.css", *styles))
    return template.substitute(title=join(title), style=style.strip(), body="\n".join(body))


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")
