"""Prompts as users write them: lines, each a text and options such as `--w 768 --s 20`, or tables of TOML and
JSON files with a key for each option. Imports no torch.

An option begins with " --" and a letter, so other dashes are part of the text: "a girl -- 10 s" has none.
Everything before the first option is the prompt, whatever it looks like: "s 10 girls" draws girls. Upper and
lower case are the same in option names. prompt_options.py says which options there are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from library.generation.dynamic import chosen_texts, has_choices
from library.generation.editing import part_at
from library.generation.lookalikes import Lookalikes
from library.generation.network_words import WORD, NamedNetwork, read_word
from library.generation.prompt_options import PromptSyntax
from library.generation.request import PromptRequest
from library.problems import Problems, UserError, warn
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
    Raises UserError with the problems of the file, each with its line or number and its column; of many the
    first ones and their count. Where the syntax is lenient, wrong options are left out with warnings.
    """
    problems, requests, reader = Problems(), [], _Reader.of(syntax, defaults)
    for where, entry in _entries(path, syntax):
        request = problems.attempt(reader.read, entry, where)
        if request is not None:
            requests.append(request)
    reader.warn(path)
    if not requests and not problems.found:
        problems.add(path, "holds no prompts", _EMPTY_FIX.get(path.suffix.lower(), "write one a line"))
    _raise_first(problems, path)
    return requests


def parse_prompt(
    line: str, syntax: PromptSyntax, *, where: str, defaults: PromptRequest = _DEFAULTS
) -> PromptRequest:
    """The request that a line makes.

    where: what problems are about, e.g. a file and its line.
    Raises UserError with the options that do not exist, are given twice or have a wrong value, each with its
    column; of many the first ones and their count. Where the syntax is lenient, these are left out with
    warnings.
    """
    reader = _Reader.of(syntax, defaults)
    try:
        return reader.read(line, where)
    finally:
        reader.warn(where)


_OPTION_START = re.compile(r"(?:^| )--(?=[A-Za-z])")
_LINE_END = re.compile("\r\n|\r|\n")
_EMPTY_FIX = {".toml": "write a [[prompt.subset]] for each", ".json": "write an array of them"}


class _Given(NamedTuple):
    """An option as it stands in a prompt.

    option: its name in the syntax.
    name: as the prompt has it, `--s` or `sample_steps`.
    text: its value.
    where: its place for messages.
    """

    option: str
    name: str
    text: str
    where: str


class _Reader(NamedTuple):
    """Reads prompts, of lines and of tables.

    lookalikes: takes those of all prompts that are read.
    left_out: takes the problems of options that are left out, where the syntax is lenient.
    told: takes the warnings that were printed, so that none comes twice.
    """

    syntax: PromptSyntax
    lookalikes: Lookalikes
    defaults: PromptRequest
    left_out: Problems
    told: set[str]

    @classmethod
    def of(cls, syntax: PromptSyntax, defaults: PromptRequest) -> _Reader:
        return cls(syntax, Lookalikes(syntax), defaults, Problems(), set())

    def read(self, entry: str | Keys, where: str) -> PromptRequest:
        """The request of a line or a table; of a dynamic one, with the choices of seed 0."""
        texts = (
            [entry] if isinstance(entry, str) else [text for text in entry.values() if isinstance(text, str)]
        )
        if not any(has_choices(text, self.syntax.find_wildcard) for text in texts):
            return self.plain(entry, where)
        _check_text("".join(texts), where)
        first = self.plain(self.chosen(entry, 0, where)[0], where)
        # A reader of its own: what it warns of later comes once, but not at the end of the file.
        reader = self._replace(lookalikes=Lookalikes(self.syntax), left_out=Problems(), told=set(self.told))
        return replace(first, choices=_Dynamic(entry, where, reader, first))

    def plain(self, entry: str | Keys, where: str) -> PromptRequest:
        """The request of a line or a table without choices."""
        return self.from_line(entry, where) if isinstance(entry, str) else self.from_keys(entry, where)

    def chosen(self, entry: str | Keys, seed: int, where: str) -> Sequence[str | Keys]:
        """A dynamic line or table with its choices made by a seed."""
        try:
            if isinstance(entry, str):
                return chosen_texts(entry, seed, self.syntax.find_wildcard)
            found: list[Keys] = [{}]
            for key, value in entry.items():
                values: list[object] = [value]
                if isinstance(value, str):
                    values = [*chosen_texts(value, seed, self.syntax.find_wildcard)]
                found = [{**keys, key: one} for keys in found for one in values]
            return found
        except ValueError as error:
            raise UserError.of(where, f"expects {error}") from None

    def from_line(self, line: str, where: str) -> PromptRequest:
        """The request of a line."""
        _check_text(line, where)
        starts = [match.end() for match in _OPTION_START.finditer(line)]
        text = line[: starts[0] - len("--")] if starts else line
        problems, times = Problems(), Counter[str]()
        text, networks = self._without_networks(text, where, problems)
        request = replace(self.defaults, prompt=text.strip(), networks=networks, raw=line.strip())
        self.lookalikes.look(text, where=where)
        for start, end in pairwise([*starts, len(line) + len("--")]):
            piece = line[start : end - len("--")]
            name, value = (*piece.split(maxsplit=1), "")[:2]
            option, place = name.lower(), f"{where}, column {start - 1}"
            times[option] += 1
            if times[option] > 1:
                if times[option] == 2:
                    problems.add(place, f"--{option} is given twice")
            elif self._knows(option):
                self.lookalikes.look(value, where=where)
                given = _Given(option, f"--{option}", value.strip(), place)
                request = problems.attempt(self._written, request, given) or request
            else:
                known = ", ".join(f"--{known}" for known in self.syntax.options)
                problems.add(place, f"there is no prompt option --{shortened(name)}", f"there are {known}")
        self._settle(problems, where)
        return request

    def _without_networks(
        self, text: str, where: str, problems: Problems
    ) -> tuple[str, tuple[NamedNetwork, ...]]:
        """A prompt's text without the networks that it names, and these."""
        found: list[NamedNetwork] = []
        if self.syntax.find_network is None:
            return text, ()
        for match in WORD.finditer(text):
            try:
                named = read_word(match[1], self.syntax.find_network)
                found.append(replace(named, part=part_at(text, match.start())))
            except ValueError as error:
                place = f"{where}, column {match.start() + 1}"
                problems.add(place, f"{shortened(match[0])} {error}")
        return WORD.sub("", text), tuple(found)

    def from_keys(self, keys: Keys, where: str) -> PromptRequest:
        """The request of a table; values are read like those of a line's options."""
        problems, request = Problems(), self.defaults
        prompt = keys.get("prompt")
        if isinstance(prompt, str):
            _check_text(prompt, where)
            self.lookalikes.look(prompt, where=where, in_table=True)
            request = replace(request, prompt=prompt.strip())
        else:
            raise UserError.of(where, "has no prompt", 'write prompt: "a cat"')
        for key, value in keys.items():
            option = self.syntax.keys.get(key)
            if option is None and key != "prompt":
                known = ", ".join(self.syntax.keys)
                problems.add(where, f"a prompt has no key {shortened(key)}", f"there are prompt, {known}")
            elif option is not None and isinstance(value, (list, dict)):
                problems.add(where, f"{key} is {kind_of(value)}, not a text or a number")
            elif option is not None and value is not None:
                given = _Given(option, key, _as_text(value), where)
                self.lookalikes.look(given.text, where=where, in_table=True)
                request = problems.attempt(self._written, request, given) or request
        self._settle(problems, where)
        return request

    def warn(self, where: object) -> None:
        """Print the warnings about everything that was read."""
        different = list(dict.fromkeys(self.left_out.found))
        lines = [f"{problem.where}: {problem.cause}; it is left out" for problem in different[:MOST_PROBLEMS]]
        if different[MOST_PROBLEMS:]:
            count = counted(len(different) - MOST_PROBLEMS, "more option")
            lines.append(f"{where}: {count} are wrong and left out")
        for line in [*self.lookalikes.warnings(), *lines]:
            if line not in self.told:
                warn(line)
        self.told.update(lines)

    def _settle(self, problems: Problems, where: str) -> None:
        """Raise the problems of options, or leave these out."""
        if self.syntax.is_lenient:
            self.left_out.found += problems.found
        else:
            _raise_first(problems, where)

    def _knows(self, option: str) -> bool:
        return option in self.syntax.options or option in self.syntax.not_yet

    def _written(self, request: PromptRequest, given: _Given) -> PromptRequest:
        """The request with an option's value written into it."""
        where = given.where
        _check_text(given.text, where)
        if given.option in self.syntax.not_yet:
            raise UserError.of(where, f"{given.name} is not available yet", "remove it")
        try:
            return self.syntax.options[given.option](request, given.text)
        except ValueError as error:
            shown = repr(shortened(given.text))
            raise UserError.of(where, f"{given.name} expects {error}, got {shown}") from None


class _Dynamic(NamedTuple):
    """A line or a table with choices.

    first: what it was read as at first.
    """

    entry: str | Keys
    where: str
    reader: _Reader
    first: PromptRequest

    def made(self, request: PromptRequest, seed: int) -> list[PromptRequest]:
        decided = {
            one.name: getattr(request, one.name)
            for one in fields(request)
            if one.name != "choices" and getattr(request, one.name) != getattr(self.first, one.name)
        }
        entries = self.reader.chosen(self.entry, seed, self.where)
        found = [replace(self.reader.plain(entry, self.where), **decided) for entry in entries]
        self.reader.warn(self.where)
        return found


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
                yield f"{path}, line {number}", line
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
