"""Prompts as users write them: lines, each a text and options such as `--w 768 --s 20`, or tables of TOML and
JSON files with a key for each option. Imports no torch.

An option begins with " --" and a letter, so other dashes are part of the text: "a girl -- 10 s" has none.
Everything before the first option is the prompt, whatever it looks like: "s 10 girls" draws girls. Upper and
lower case are the same in option names. prompt_options.py says which options there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from library.generation.lookalikes import Lookalikes
from library.generation.prompt_options import PromptSyntax
from library.generation.request import PromptRequest
from library.problems import Problems, UserError
from library.table_files import kind_of, parse_tables
from library.text_files import is_text, read_text
from library.wording import counted, shortened

_DEFAULTS = PromptRequest("")

Keys = dict[str, object]  # a prompt in a TOML or JSON file

LONGEST = 2**16  # characters of a prompt with its options; models look at 225 tokens
LONGEST_FILE = 2**26  # bytes
MOST_PROBLEMS = 20  # told of one line or file


def read_prompts(
    path: Path, syntax: PromptSyntax, *, defaults: PromptRequest = _DEFAULTS
) -> list[PromptRequest]:
    """The prompts of a file.

    A text file has one a line; blank lines and lines that start with `#` are skipped. A .json file has an
    array of lines and of objects, a .toml file [[prompt.subset]] tables, with what they share in [prompt].

    syntax: the options that a prompt may have.
    defaults: the values of everything that a prompt does not say.
    Raises UserError with the problems of the file, each with its line or number; of many the first ones and
    their count.
    """
    problems, requests, reader = Problems(), [], _Reader(syntax, Lookalikes(syntax), defaults)
    for where, entry in _entries(path, syntax):
        if isinstance(entry, str):
            request = problems.attempt(reader.from_line, entry, where)
        else:
            request = problems.attempt(reader.from_keys, entry, where)
        if request is not None:
            requests.append(request)
    reader.lookalikes.warn()
    if not requests and not problems.found:
        problems.add(path, "holds no prompts", _EMPTY_FIX.get(path.suffix.lower(), "write one a line"))
    _raise_first(problems, path)
    return requests


def parse_prompt(
    line: str, syntax: PromptSyntax, *, where: str, defaults: PromptRequest = _DEFAULTS
) -> PromptRequest:
    """The request that a line makes.

    where: what problems are about, e.g. a file and its line.
    Raises UserError with the options that do not exist, are given twice or have a wrong value; of many the
    first ones and their count.
    """
    reader = _Reader(syntax, Lookalikes(syntax), defaults)
    try:
        return reader.from_line(line, where)
    finally:
        reader.lookalikes.warn()


_OPTION_START = re.compile(r"(?:^| )--(?=[A-Za-z])")
_LINE_END = re.compile("\r\n|\r|\n")
_EMPTY_FIX = {".toml": "write a [[prompt.subset]] for each", ".json": "write an array of them"}


class _Given(NamedTuple):
    """An option as it stands in a prompt.

    option: its name in the syntax.
    name: as the prompt has it, `--s` or `sample_steps`.
    text: its value.
    """

    option: str
    name: str
    text: str


class _Reader(NamedTuple):
    """Reads prompts, of lines and of tables.

    lookalikes: takes those of all prompts that are read.
    """

    syntax: PromptSyntax
    lookalikes: Lookalikes
    defaults: PromptRequest

    def from_line(self, line: str, where: str) -> PromptRequest:
        """The request of a line."""
        _check_text(line, where)
        text, *pieces = _OPTION_START.split(line)
        request = replace(self.defaults, prompt=text.strip(), raw=line)
        self.lookalikes.look(text, where=where)
        problems, seen = Problems(), set()
        for piece in pieces:
            name, value = (*piece.split(maxsplit=1), "")[:2]
            option = name.lower()
            if option in seen:
                problems.add(where, f"--{option} is given twice")
            elif self._knows(option):
                self.lookalikes.look(value, where=where)
                given = _Given(option, f"--{option}", value.strip())
                request = problems.attempt(self._written, request, given, where) or request
            else:
                known = ", ".join(f"--{known}" for known in self.syntax.options)
                problems.add(where, f"there is no prompt option --{shortened(name)}", f"there are {known}")
            seen.add(option)
        _raise_first(problems, where)
        return request

    def from_keys(self, keys: Keys, where: str) -> PromptRequest:
        """The request of a table; values are read like those of a line's options."""
        problems, request = Problems(), self.defaults
        prompt = keys.get("prompt")
        if isinstance(prompt, str):
            _check_text(prompt, where)
            self.lookalikes.look(prompt, where=where, in_table=True)
            request = replace(request, prompt=prompt.strip())
        else:
            problems.add(where, "has no prompt", 'write prompt: "a cat"')
        for key, value in keys.items():
            option = self.syntax.keys.get(key)
            if option is None and key != "prompt":
                known = ", ".join(self.syntax.keys)
                problems.add(where, f"a prompt has no key {shortened(key)}", f"there are prompt, {known}")
            elif option is not None and isinstance(value, (list, dict)):
                problems.add(where, f"{key} is {kind_of(value)}, not a text or a number")
            elif option is not None and value is not None:
                given = _Given(option, key, _as_text(value))
                self.lookalikes.look(given.text, where=where, in_table=True)
                request = problems.attempt(self._written, request, given, where) or request
        _raise_first(problems, where)
        return request

    def _knows(self, option: str) -> bool:
        return option in self.syntax.options or option in self.syntax.not_yet

    def _written(self, request: PromptRequest, given: _Given, where: str) -> PromptRequest:
        """The request with an option's value written into it."""
        _check_text(given.text, where)
        if given.option in self.syntax.not_yet:
            raise UserError.of(where, f"{given.name} is not available yet", "remove it")
        try:
            return self.syntax.options[given.option](request, given.text)
        except ValueError as error:
            shown = repr(shortened(given.text))
            raise UserError.of(where, f"{given.name} expects {error}, got {shown}") from None


def _as_text(value: object) -> str:
    """A value of a table as a line has it."""
    # Python refuses to write integers of thousands of digits, which TOML can have in hexadecimal.
    return hex(value) if isinstance(value, int) and value.bit_length() > 1000 else str(value)


def _check_text(text: str, where: str) -> None:
    """Raises UserError for what no model and no picture's file can hold."""
    if len(text) > LONGEST:
        raise UserError.of(where, f"is {len(text):,} characters long", f"a prompt has at most {LONGEST:,}")
    if not is_text(text):
        raise UserError.of(where, "holds a zero byte or half a character, which is no text", "remove it")


def _raise_first(problems: Problems, where: object) -> None:
    """Raise UserError with the first problems, if there are any, and with how many more there are."""
    different = list(dict.fromkeys(problems.found))
    first, more = Problems(different[:MOST_PROBLEMS]), len(different) - MOST_PROBLEMS
    if more > 0:
        first.add(where, f"has {counted(more, 'more problem')}", "solve those above first")
    first.raise_if_any()


def _entries(path: Path, syntax: PromptSyntax) -> Iterator[tuple[str, str | Keys]]:
    """The lines and tables of a file, each with its place for messages."""
    text, suffix = read_text(path, longest=LONGEST_FILE), path.suffix.lower()
    if suffix not in _EMPTY_FIX:
        for number, line in enumerate(_LINE_END.split(text), start=1):
            if line.strip() and not line.strip().startswith("#"):
                yield f"{path}, line {number}", line.strip()
        return
    if not syntax.keys:
        raise UserError.of(
            path, f"a {suffix} file is no prompt file here", "use a .txt file with a prompt a line"
        )
    found = parse_tables(text, path)
    entries = _subsets(found, path) if suffix == ".toml" else found
    if not isinstance(entries, list):
        raise UserError.of(path, f"is {kind_of(entries)}", _EMPTY_FIX[suffix])
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, (str, dict) if suffix == ".json" else dict):
            raise UserError.of(f"{path}, prompt {number}", f"is {kind_of(entry)}, not a prompt")
        yield f"{path}, prompt {number}", entry


def _subsets(content: Keys, path: Path) -> list[object]:
    """The prompts of a TOML file, each with the keys that all share."""
    shared = content.get("prompt", {})
    others = [name for name in content if name != "prompt"]
    if others or not isinstance(shared, dict):
        raise UserError.of(path, f"{(others or ['prompt'])[0]} is no table of prompts", _EMPTY_FIX[".toml"])
    subsets = shared.pop("subset", [])
    if not isinstance(subsets, list):
        raise UserError.of(path, "prompt.subset is one table", "write [[prompt.subset]], with two brackets")
    return [shared | subset if isinstance(subset, dict) else subset for subset in subsets]
