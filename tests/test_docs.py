"""What README and docs tell users to type is what the commands understand."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from library.data.config.file import read_dataset_file
from library.data.config.keys import ONLY_IN_SUBSETS
from library.data.config.specs import DATASET_KEYS, OPTION_NAMES, SUBSET_KEYS
from library.network_tools.readers import FORMS, PROGRAMS, worst
from library.options.data import DataOptions
from library.options.fields import specs_of
from library.options.parser import read_command_line
from library.problems import Problems
from tools import run_queue

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OF_THE_USER = {"my_lora.toml"}  # files that README shows


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """The page's code blocks in these languages."""
    text = page.read_text(encoding="utf-8")
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language in languages:
            yield block


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command of Atelier in the page's shell blocks, from the script's name on."""
    for block in blocks(page, "bash", "powershell"):
        for line in re.sub(r"[\\`]\n", " ", block).splitlines():
            words = shlex.split(line, comments=True)
            start = next((i for i, word in enumerate(words) if word.endswith(".py")), None)
            if start is not None:
                yield words[start:]


ALL_COMMANDS = [(page, words) for page in PAGES for words in commands(page)]


def test_there_are_commands_in_the_pages() -> None:
    assert {words[0] for _, words in ALL_COMMANDS} >= {"train_network.py", "gen_img_diffusers.py"}


@pytest.mark.parametrize(
    ("page", "words"),
    ALL_COMMANDS,
    ids=[f"{page.name}: {' '.join(words)[:60]}" for page, words in ALL_COMMANDS],
)
def test_a_command_in_a_page_is_understood(page: Path, words: list[str], tmp_path: Path) -> None:
    script, *arguments = words
    assert (ROOT / script).is_file()
    if script == "tools/run_queue.py":
        check_queue_command(arguments)
        return
    text = (ROOT / script).read_text(encoding="utf-8")
    if "class Run" in text:
        (tmp_path / "my_lora.toml").write_text(readme_config(), encoding="utf-8")
        arguments = [str(tmp_path / word) if word in OF_THE_USER else word for word in arguments]
        run_type = importlib.import_module(script.removesuffix(".py").replace("/", ".")).Run
        assert read_command_line(run_type, argv=arguments).problems == []


def check_queue_command(words: list[str]) -> None:
    before, verb, after = run_queue.split(words)
    assert read_command_line(run_queue.QueueRun, argv=before).problems == []
    run_type, _ = run_queue.VERBS[verb or ""]
    own, command = run_queue.own_words(after) if verb == "add" else (after, [])
    assert bool(command) == (verb == "add")
    assert read_command_line(run_type, argv=own).problems == []


def readme_config() -> str:
    """README's configuration file."""
    (config,) = blocks(ROOT / "README.md", "toml")
    return config


DATASET_FILES = [block for page in PAGES for block in blocks(page, "toml", "json") if "subsets" in block]


def test_there_are_dataset_files_in_the_pages() -> None:
    assert len(DATASET_FILES) == 3


@pytest.mark.parametrize("content", DATASET_FILES)
def test_a_dataset_file_in_a_page_has_no_mistake(content: str, tmp_path: Path) -> None:
    path = tmp_path / ("data.json" if content.startswith("{") else "data.toml")
    path.write_text(content, encoding="utf-8")
    problems = Problems()
    assert read_dataset_file(path, problems)
    assert problems.found == []


@pytest.mark.parametrize("key", [*DATASET_KEYS, *SUBSET_KEYS])
def test_every_key_of_dataset_files_is_in_their_page(key: str) -> None:
    page = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| `{key}`.*$", page, re.MULTILINE)
    options = [spec for spec in specs_of(DataOptions) if spec.name == OPTION_NAMES.get(key, key)]
    assert len(rows) == 1
    if options and key in OPTION_NAMES:
        assert f"(`--{OPTION_NAMES[key]}`)" in rows[0]
    assert ("no option" in rows[0]) == (not options and key not in ONLY_IN_SUBSETS)
    default = options[0].default if options else None
    if default not in (None, "") and key not in ONLY_IN_SUBSETS:
        assert f"| `{json.dumps(default).removesuffix('.0')}` |" in rows[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", page.read_text(encoding="utf-8"))
    for target, anchor in links:
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), target
        if anchor:
            assert anchor[1:] in anchors(linked), anchor


def anchors(page: Path) -> set[str]:
    """The anchors GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_page_of_networks_says_who_reads_what() -> None:
    """A Tucker LoKr is a LoKr, too."""
    rows = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8").splitlines()
    for form in FORMS:
        kinds = [one for one in FORMS if one.title in (form.title, form.title.removeprefix("Tucker "))]
        cells = [form.title]
        for program in PROGRAMS:
            reading = worst(one.less[program] for one in kinds if program in one.less)
            says_why = reading.degree in ("part", "wrong")
            cells.append(f"{reading.degree}: {reading.why}" if says_why else reading.degree)
        assert f"| {' | '.join(cells)} |" in rows
