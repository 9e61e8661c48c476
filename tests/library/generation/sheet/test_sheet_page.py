"""The contact sheet and pictures of grids."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image, ImageFont

from library.generation.sheet.grid import LONGEST, _fitted, draw_grid
from library.generation.sheet.page import ContactSheet

FACTS = {"negative-prompt": "", "steps": "30", "sampler": "euler_a"}
RED, BLUE = (255, 0, 0), (0, 0, 255)


class Reader(HTMLParser):
    """What a page shows."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.texts: list[str] = []
        self.images: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "a":
            self.links.append(found["href"])
        if tag == "img":
            self.images.append(found["src"])

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def write(folder: Path, **prompts: int) -> str:
    """The page of so many pictures of each prompt."""
    sheet = ContactSheet("a run")
    for prompt, count in prompts.items():
        for seed in range(count):
            path = Path(f"{prompt} #{seed}.png")
            facts = {**FACTS, "prompt": prompt, "seed": str(seed), "scale": "7" if seed else "3"}
            sheet.add(path, Image.new("RGB", (640, 512), RED), facts)
    return sheet.write(folder).read_text(encoding="utf-8")


def test_pictures_are_grouped_by_prompt_with_what_differs(tmp_path: Path) -> None:
    page = Reader(write(tmp_path, cat=2, dog=1))
    text = "|".join(page.texts)
    assert "3 pictures of 2 prompts" in text
    assert (
        text.index("cat") < text.index("seed 0, scale 3") < text.index("seed 1, scale 7") < text.index("dog")
    )
    assert text.count("euler_a") == 1  # all have it: it stands above them
    assert [link for link in page.links if link.endswith(".png")] == [
        "cat%20%230.png",
        "cat%20%231.png",
        "dog%20%230.png",
    ]
    assert all(image.startswith("data:image/webp;base64,") for image in page.images)
    assert len(page.images) == 3


def test_prompts_are_text_and_the_page_loads_nothing(tmp_path: Path) -> None:
    sheet = ContactSheet("a run")
    sheet.add(Path("a.png"), Image.new("RGB", (8, 8)), {**FACTS, "prompt": "<script>alert(1)</script>"})
    page = sheet.write(tmp_path).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<script>alert(1)</script>" in Reader(page).texts
    assert not re.search(r"(src|href)=\"(?!data:|#|a\.png)", page)


def test_the_page_of_an_earlier_run_is_kept(tmp_path: Path) -> None:
    first = write(tmp_path, cat=1)
    write(tmp_path, dog=1)
    last = Reader(write(tmp_path, bird=1))
    kept = sorted(path.name for path in tmp_path.glob("index_*.html"))
    assert len(kept) == 2
    assert set(kept) <= set(last.links)
    assert first in [(tmp_path / name).read_text(encoding="utf-8") for name in kept]


def test_a_grid_has_every_picture_in_its_place() -> None:
    red, blue = (Image.new("RGB", (64, 48), colour) for colour in (RED, BLUE))
    grid = draw_grid([[red, blue], [blue, None]], ["3", "5"], ["10", "20"], title="a cat")
    colours = {
        place: grid.getpixel((grid.width * x // 100, grid.height * y // 100))
        for place, (x, y) in {"00": (40, 50), "01": (85, 50), "10": (40, 90), "11": (85, 90)}.items()
    }
    assert (colours["00"], colours["01"], colours["10"]) == (RED, BLUE, BLUE)
    assert colours["11"] not in (RED, BLUE)
    assert draw_grid([[red, blue]], ["3", "5"], []).width < grid.width  # no labels of rows


def test_labels_without_room_keep_both_ends() -> None:
    font = ImageFont.load_default(13)
    assert _fitted(font, "x-000004", 200) == "x-000004"
    cut = _fitted(font, "style-step00000030", 60)
    assert cut.startswith("s")
    assert "…" in cut
    assert cut.endswith("30")
    assert _fitted(font, "style", 1) == "…"


def test_large_grids_are_made_smaller() -> None:
    large = Image.new("RGB", (1024, 1536), RED)
    grid = draw_grid([[large] * 10] * 2, [str(n) for n in range(10)], ["a", "b"])
    assert LONGEST < grid.width < 1.1 * LONGEST
    assert grid.getpixel((grid.width // 2, grid.height // 2 + 100)) == RED
