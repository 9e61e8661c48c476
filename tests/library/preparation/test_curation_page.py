"""The curation page, operated in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from commands import make_pictures, run_here

from library.table_files import read_tables

pytestmark = [pytest.mark.long, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of six pictures and its page."""
    folder = make_pictures(tmp_path_factory.mktemp("page") / "set", 6, size=(96, 64))
    (folder / "0_01.txt").write_text("1girl, 2girls, </script>&")
    (folder / "0_02.txt").write_text("1girl, 2girls, " + "word " * 90)
    page = folder.parent / "page.html"
    run_here("tools.curate", folder, "--page", page)
    return folder, page


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "profile") as opened:
        yield opened


def names(browser: Browser) -> list[str]:
    return browser.ask("[...document.querySelectorAll('.tile .name')].map((name) => name.textContent)")


def click(browser: Browser, selector: str) -> None:
    browser.ask(f"document.querySelector({json.dumps(selector)}).click()")


def search(browser: Browser, text: str) -> None:
    browser.ask(f"$('search').value = {json.dumps(text)}; $('search').dispatchEvent(new Event('input'))")


def test_page_is_operated_and_its_export_is_carried_out(
    dataset: tuple[Path, Path], browser: Browser, tmp_path: Path
) -> None:
    folder, page = dataset
    browser.open(page)
    assert len(names(browser)) == 6
    click(browser, "[data-kind='contradiction']")
    assert sorted(names(browser)) == ["0_01.png", "0_02.png"]
    click(browser, "[data-kind='over 75 tokens']")
    assert names(browser) == ["0_02.png"]
    browser.press("d")
    click(browser, "[data-kind='over 75 tokens']")
    click(browser, "[data-kind='contradiction']")
    search(browser, "0_01 2GIRLS")
    assert names(browser) == ["0_01.png"]
    browser.press("e")
    browser.ask("$('caption').value = 'a \"new\" caption'; $('caption').dispatchEvent(new Event('change'))")
    click(browser, "#details .row button:last-child")
    search(browser, "0_03")
    browser.press("3")
    search(browser, "0_04")
    browser.press("Enter")
    browser.press("d")  # also where the picture is open; nothing is typed into its caption
    assert browser.ask("decisions.get('set/0_04.png').drop")
    browser.press("u")
    exported = browser.ask("toToml()")
    file = tmp_path / "decisions.toml"
    file.write_text(exported, encoding="utf-8")
    outcomes = {
        entry["file"]: {key: entry[key] for key in ("drop", "caption", "repeat") if key in entry}
        for entry in read_tables(file)["pictures"]
    }
    assert outcomes == {
        "set/0_01.png": {"caption": 'a "new" caption'},
        "set/0_02.png": {"drop": True},
        "set/0_03.png": {"repeat": 3},
    }

    browser.open(page)  # what was decided is remembered
    assert browser.ask("toToml()") == exported
    browser.ask("localStorage.clear()")
    browser.open(page)
    assert browser.ask("decisions.size") == 0
    browser.choose_file("#load", file)
    said = browser.ask(
        "new Promise((done) => { const wait = () => $('said').textContent ? done($('said').textContent)"
        " : setTimeout(wait, 20); wait(); })"
    )
    assert said == "3 decisions taken"
    assert browser.ask("toToml()") == exported

    copy = tmp_path / "copy"
    run_here("tools.apply_decisions", folder, "--decisions", file, "--output_dir", copy)
    assert sorted(path.name for path in copy.rglob("*.png")) == [f"0_0{n}.png" for n in (0, 1, 3, 4, 5)]
    assert next(copy.rglob("0_01.txt")).read_text() == 'a "new" caption'


def test_5000_pictures_are_as_quick_as_few(
    dataset: tuple[Path, Path], browser: Browser, tmp_path: Path
) -> None:
    text, page = dataset[1].read_text(encoding="utf-8"), tmp_path / "large.html"
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    content = json.loads(data)
    rows = [content["pictures"][number % 6] | {"name": f"set/{number}.png"} for number in range(5000)]
    # Thumbnails as large as photographs have: the bytes behind a picture's end count for nothing but size.
    for row in rows:
        row["src"] = row["src"].rstrip("=")[:-4] + "A" * 5600
    content["pictures"] = rows
    page.write_text(text.replace(data, json.dumps(content).replace("<", "\\u003c")), encoding="utf-8")
    browser.open(page)
    paint = browser.ask("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    filtered = browser.ask(
        "Math.min(...[1, 2, 3, 4].map(() => { const start = performance.now();"
        "document.querySelector('[data-kind=contradiction]').click();"
        "document.body.offsetHeight; return performance.now() - start; }))"
    )
    browser.ask("scrollTo(0, 1e5)")
    elements = browser.ask(
        "new Promise((done) => setTimeout(() => done(document.querySelectorAll('*').length), 200))"
    )
    print(
        f"{page.stat().st_size / 1e6:.0f} MB, {elements} elements, {paint:.0f} ms, filter {filtered:.0f} ms"
    )
    assert page.stat().st_size <= 40e6
    assert elements <= 1000
    assert filtered <= 50
    assert paint <= 1000
