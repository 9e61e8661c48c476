"""Write docs/options.md from the option sections of the commands. `make docs` runs it; it has no options.

python tools/make_option_docs.py

The page is made from what the parser reads and from nothing else, so the two cannot differ. No torch is
imported, and the same code always gives the same page.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.files import whole_file
from library.options.fields import OptionSpec, specs_of, title_of
from library.options.parser import all_sections
from library.options.unavailable import REFUSED
from library.secrets import Secret

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "options.md"
FOLDERS = (".", "tools", "finetune", "networks")
# The order of the commands on the page; others follow by name.
FIRST = ("train_network.py", "train_db.py", "fine_tune.py", "gen_img.py")

INTRODUCTION = """\
# Options

Made by `make docs` from the option sections in `library/options/`; change those, not this page. `--help` of a
command shows its own options.

* A value follows its option after a space or an equals sign: `--seed 1` or `--seed=1`. A *switch* takes no
  value. An option that takes *several* values takes all words up to the next option.
* Options are written out in full; abbreviations are not accepted.
* `--config_file run.toml` reads options from a TOML file. Its tables only group; their names mean nothing. A
  switch is `true` or `false` there, and several values are a list. The command line wins over the file.
* `--config_file run.toml --output_config` writes the options of this command line to that file and stops.
"""

REFUSED_INTRODUCTION = """\
## Refused for good

These will not be there; giving one its default in sd-scripts asks for nothing.
[differences.md](differences.md) says more.
"""


def main() -> None:
    with whole_file(PAGE) as temporary:
        temporary.write_bytes(render().encode())
    print(f"wrote {PAGE.relative_to(ROOT)}")


def render() -> str:
    """The page as Markdown."""
    runs = find_runs()
    chapters = [_chapter(section, commands) for section, commands in commands_by_section(runs).items()]
    ends = [REFUSED_INTRODUCTION, _refused()]
    return "\n".join([INTRODUCTION, *chapters, *ends])


def find_runs() -> dict[str, type]:
    """The Run class of each command, by the command's path."""
    paths = (path for folder in FOLDERS for path in (ROOT / folder).glob("*.py"))
    commands = sorted(path.relative_to(ROOT) for path in paths if _has_run(path))
    names = sorted((path.as_posix() for path in commands), key=lambda name: (_place(name), name))
    return {name: importlib.import_module(name[: -len(".py")].replace("/", ".")).Run for name in names}


def commands_by_section(runs: dict[str, type]) -> dict[type, list[str]]:
    """Each option section and the commands that have it: sections of several commands first, then in the
    order in which --help shows them.
    """
    found: dict[type, list[str]] = {}
    for command, run in runs.items():
        for section in all_sections(run):
            found.setdefault(section, []).append(command)
    return dict(sorted(found.items(), key=lambda item: len(item[1]) == 1))


def _has_run(path: Path) -> bool:
    return re.search(r"^class Run\b", path.read_text(encoding="utf-8"), re.MULTILINE) is not None


def _place(command: str) -> int:
    return FIRST.index(command) if command in FIRST else len(FIRST)


def _chapter(section: type, commands: list[str]) -> str:
    names = ", ".join(f"`{command}`" for command in commands)
    title = title_of(section)
    heading = f"{title} (`{commands[0]}`)" if len(commands) == 1 else title
    rows = [_row(spec) for spec in specs_of(section)]
    return f"## {heading}\n\nIn {names}.\n\n" + _table(("option", "value", "default", "meaning"), rows)


def _row(spec: OptionSpec) -> tuple[str, ...]:
    names = [spec.metavar or spec.name] if spec.positional else [spec.flag, *spec.aliases]
    flags = ", ".join(f"`{name}`" for name in names)
    return flags, _value(spec), _code(spec.default_text), _escape(spec.help)


def _value(spec: OptionSpec) -> str:
    """What kind of value the option takes."""
    if spec.choices:
        kind = " ".join(f"`{choice}`" for choice in spec.choices)
    elif spec.convert is not None:
        kind = f"`{spec.metavar}`"
    else:
        names = {
            bool: "switch",
            int: "whole number",
            float: "number",
            str: "text",
            Path: "path",
            Secret: "token",
        }
        kind = names[spec.item_type]
        # DIR, FILE and MODEL say more than the kind; N and X do not.
        if spec.metavar and len(spec.metavar) > 1 and not spec.positional:
            kind += f" `{spec.metavar}`"
    return f"several: {kind}" if spec.is_list else kind


def _refused() -> str:
    rows = [(f"`--{name}`", refusal.cause, refusal.fix) for name, refusal in REFUSED.items()]
    return _table(("option", "why", "what to do"), rows)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (header, ("---",) * len(header), *rows)
    return "".join(f"| {' | '.join(line)} |\n".replace("|  |", "| |") for line in lines)


def _code(value: object) -> str:
    return "" if value is None else f"`{value}`"


def _escape(text: str) -> str:
    """Help text in a Markdown table: bars would end the cell, angle brackets and stars would vanish."""
    return re.sub(r"([|<>*])", r"\\\1", text)


if __name__ == "__main__":
    main()
