"""The contact sheet: a page beside the pictures of a run that shows them all, with how each was drawn."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from library.files import whole_file
from library.pages.document import document
from library.pages.figures import counted, times
from library.pages.images import thumbnail
from library.pages.markup import Html, element
from library.problems import warn

NAME = "index.html"
LONGEST = 320  # pixels, of a small picture's longer side
TEXTS = ("prompt", "negative-prompt")  # told above the pictures of a prompt; the others are settings
UNTOLD = ("seed", "raw-prompt", "parameters")  # a seed is told with its picture
_STYLE = Path(__file__).with_name("sheet.css")


@dataclass(frozen=True)
class Card:
    """A picture of the sheet.

    file: its path, from the page's folder.
    address: the data: URL of the small one.
    small, size: (width, height) in pixels of the small one and of the picture.
    facts: what its PNG says of it: prompt, seed, steps and so on.
    """

    file: str
    address: str
    small: tuple[int, int]
    size: tuple[int, int]
    facts: Mapping[str, str]


@dataclass
class ContactSheet:
    """The pictures of a run, for its page.

    title: heads the page.
    wanted: the page is wanted of this many pictures, or more.
    cards: in the order of drawing.
    grids: pictures of grids.
    parts: what else the page shows, by its headings.
    """

    title: str
    wanted: int = 1
    cards: list[Card] = field(default_factory=list)
    grids: list[Card] = field(default_factory=list)
    parts: dict[str, Html] = field(default_factory=dict)
    _is_written: bool = False

    @property
    def is_wanted(self) -> bool:
        """Whether there are pictures enough for a page."""
        return len(self.cards) >= self.wanted

    def add(self, path: Path, picture: Image.Image, facts: Mapping[str, str]) -> None:
        """Take a picture; only a small one stays in memory. path: of its file, as seen from the page."""
        self.cards.append(_card(path, picture, LONGEST, facts))

    def add_grid(self, path: Path, picture: Image.Image) -> None:
        """Take a grid. path: of its file, as seen from the page."""
        self.grids.append(_card(path, picture, 4 * LONGEST, {}))

    def write(self, folder: Path) -> Path:
        """Write the page, whole or not at all. An earlier run's page is kept under another name, with a link.

        Returns its path. Raises NotWritten.
        """
        if not self._is_written:
            _keep_earlier(folder)
        page = _page(self, sorted(path.name for path in folder.glob("index_*.html")))
        with whole_file(folder / NAME) as temporary:
            temporary.write_text(page, encoding="utf-8")
        self._is_written = True
        return folder / NAME


def _card(path: Path, picture: Image.Image, longest: int, facts: Mapping[str, str]) -> Card:
    address, small = thumbnail(picture, longest)
    return Card(path.as_posix(), address, small, picture.size, dict(facts))


def _keep_earlier(folder: Path) -> None:
    """Rename the page of an earlier run after the moment it was written."""
    page = folder / NAME
    try:
        written = time.strftime("%Y%m%d%H%M%S", time.localtime(page.stat().st_mtime))
    except OSError:
        return
    number, kept = 0, folder / f"index_{written}.html"
    while kept.exists():
        number, kept = number + 1, folder / f"index_{written}_{number + 1}.html"
    try:
        page.rename(kept)
    except OSError as error:
        warn(f"{page}: the page of an earlier run could not be kept under another name: {error.strerror}")


def _page(sheet: ContactSheet, earlier: Sequence[str]) -> str:
    common = _common([card.facts for card in sheet.cards])
    groups = _groups(sheet.cards)
    head = element(
        "header",
        element("h1", sheet.title),
        element("p", f"{counted(len(sheet.cards), 'picture')} of {counted(len(groups), 'prompt')}"),
        _settings(common),
    )
    links = [element("li", element("a", name, href=quote(name))) for name in earlier]
    sections = {
        **sheet.parts,
        "Grid": element("div", [_grid(card) for card in sheet.grids]) if sheet.grids else None,
        "Pictures": element("div", [_group(cards, common) for cards in groups]) if groups else None,
        "Earlier runs": element("ul", links, class_="names") if links else None,
    }
    return document(sheet.title, head, sections, _STYLE)


def _groups(cards: Iterable[Card]) -> list[list[Card]]:
    """The cards of each prompt, with equal seeds beside each other, in the order of their first ones."""
    prompts: dict[tuple[str, ...], dict[str, list[Card]]] = {}
    for card in cards:
        seeds = prompts.setdefault(tuple(card.facts.get(name, "") for name in TEXTS), {})
        seeds.setdefault(card.facts.get("seed", ""), []).append(card)
    return [[card for same in seeds.values() for card in same] for seeds in prompts.values()]


def _common(facts: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The settings that all have."""
    if not facts:
        return {}
    first, *others = facts
    told = {name: value for name, value in first.items() if name not in (*TEXTS, *UNTOLD)}
    return {name: value for name, value in told.items() if all(o.get(name) == value for o in others)}


def _settings(facts: Mapping[str, str]) -> Html | None:
    if not facts:
        return None
    return element(
        "ul",
        [
            element("li", element("span", name.replace("-", " "), class_="soft"), " ", value)
            for name, value in facts.items()
        ],
        class_="facts",
    )


def _group(cards: Sequence[Card], common: Mapping[str, str]) -> Html:
    prompt, negative = (cards[0].facts.get(name, "") for name in TEXTS)
    shared = _common([card.facts for card in cards])
    told = {name: value for name, value in shared.items() if name not in common}
    return element(
        "article",
        element("h3", prompt or element("span", "no prompt", class_="empty")),
        element("p", "not: ", negative, class_="soft") if negative else None,
        _settings(told),
        element("ul", [_picture(card, shared) for card in cards], class_="sheet"),
    )


def _picture(card: Card, shared: Mapping[str, str]) -> Html:
    seed = card.facts.get("seed")
    own = {
        name: value
        for name, value in card.facts.items()
        if name not in (*TEXTS, *UNTOLD) and name not in shared
    }
    parts = [f"seed {seed}" if seed else None, *(f"{n.replace('-', ' ')} {v}" for n, v in own.items())]
    caption = ", ".join(part for part in parts if part)
    return element(
        "li",
        element(
            "figure",
            _linked(card, caption or card.file),
            element(
                "figcaption",
                element("b", caption) if caption else None,
                element("span", card.file, " ", times(card.size), class_="soft"),
            ),
        ),
    )


def _grid(card: Card) -> Html:
    return element("figure", _linked(card, "grid"), element("figcaption", card.file), class_="grid")


def _linked(card: Card, alt: str) -> Html:
    """The small picture, which leads to the picture itself."""
    width, height = card.small
    image = element("img", src=card.address, width=width, height=height, alt=alt, loading="lazy")
    return element("a", image, href=quote(card.file), title="the picture in full size")
