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

from library.generation.prompt_options import PromptSyntax
from library.generation.request import PromptRequest
from library.problems import Problems, UserError, warn
from library.table_files import kind_of, parse_tables
from library.text_files import read_text

_DEFAULTS = PromptRequest("")

Keys = dict[str, object]  # a prompt in a TOML or JSON file


def read_prompts(
    path: Path, syntax: PromptSyntax, *, defaults: PromptRequest = _DEFAULTS
) -> list[PromptRequest]:
    """The prompts of a file.

    A text file has one a line; blank lines and lines that start with `#` are skipped. A .json file has an
    array of lines and of objects, a .toml file [[prompt.subset]] tables, with what they share in [prompt].

    syntax: the options that a prompt may have.
    defaults: the values of everything that a prompt does not say.
    Raises UserError with every problem of the file, each with its line or number.
    """
    problems, requests = Problems(), []
    for where, entry in _entries(path, syntax):
        if isinstance(entry, str):
            request = problems.attempt(parse_prompt, entry, syntax, where=where, defaults=defaults)
        else:
            request = problems.attempt(_from_keys, entry, syntax, where=where, defaults=defaults)
        if request is not None:
            requests.append(request)
    if not requests and not problems.found:
        problems.add(path, "holds no prompts", _EMPTY_FIX.get(path.suffix.lower(), "write one a line"))
    problems.raise_if_any()
    return requests


def parse_prompt(
    line: str, syntax: PromptSyntax, *, where: str, defaults: PromptRequest = _DEFAULTS
) -> PromptRequest:
    """The request that a line makes.

    where: what problems are about, e.g. a file and its line.
    Raises UserError with all options that do not exist, are given twice or have a wrong value.
    """
    text, *pieces = _OPTION_START.split(line)
    request = replace(defaults, prompt=text.strip())
    _warn_of_lookalikes(line, syntax, where)
    problems, seen = Problems(), set()
    for piece in pieces:
        name, _, value = piece.partition(" ")
        option = name.lower()
        if option in seen:
            problems.add(where, f"--{option} is given twice")
        elif option in syntax.options or option in syntax.not_yet:
            given = _Given(option, f"--{option}", value.strip())
            request = problems.attempt(_written, request, given, syntax, where) or request
        else:
            known = ", ".join(f"--{known}" for known in syntax.options)
            problems.add(where, f"there is no prompt option --{name}", f"there are {known}")
        seen.add(option)
    problems.raise_if_any()
    return request


def _warn_of_lookalikes(line: str, syntax: PromptSyntax, where: str) -> None:
    """Warn of what stands in a prompt's texts and looks like an option, or like another program's syntax."""
    for found in _LOOKALIKE.finditer(line):
        text, name = found[0].strip(), (found["name"] or found["other"] or "").lower()
        if name and name not in syntax.options and name not in syntax.not_yet:
            continue
        looks = f"an option: write --{name} after a blank"
        if text.startswith("<"):
            looks = "a network in AUTOMATIC1111's syntax: networks are given by options of the command"
        elif not name:
            looks = "an option, but no option is a number"
        warn(f"{where}: {text!r} is part of the text; it looks like {looks}")


# Inside texts; what follows a blank and two hyphens is an option.
_LOOKALIKE = re.compile(
    r"<(?:lora|lyco|lycoris|hypernet):[^<>]{1,200}>"
    r"|(?<!\S)[-\u2010-\u2015\u2212](?P<name>[A-Za-z]{1,4})(?=\s+\S)"  # -w 640, –w 640
    r"|(?<!\S)(?:[\u2010-\u2015\u2212]{2}|(?<! )(?<!^)--)(?P<other>[A-Za-z]{1,4})(?=\s+\S)"  # after a tab
    r"|(?<!\S)--\d\S{0,20}"
)
_OPTION_START = re.compile(r"(?:^| )--(?=[A-Za-z])")
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


def _written(request: PromptRequest, given: _Given, syntax: PromptSyntax, where: str) -> PromptRequest:
    """The request with an option's value written into it."""
    if given.option in syntax.not_yet:
        raise UserError.of(where, f"{given.name} is not available yet", "remove it")
    try:
        return syntax.options[given.option](request, given.text)
    except ValueError as error:
        raise UserError.of(where, f"{given.name} expects {error}, got {given.text!r}") from None


def _from_keys(keys: Keys, syntax: PromptSyntax, *, where: str, defaults: PromptRequest) -> PromptRequest:
    """The request of a table; values are read like those of a line's options."""
    problems, request = Problems(), defaults
    prompt = keys.get("prompt")
    if isinstance(prompt, str):
        request = replace(request, prompt=prompt.strip())
    else:
        problems.add(where, "has no prompt", 'write prompt: "a cat"')
    for key, value in keys.items():
        option = syntax.keys.get(key)
        if option is None and key != "prompt":
            problems.add(where, f"a prompt has no key {key}", f"there are prompt, {', '.join(syntax.keys)}")
        elif option is not None and value is not None:
            given = _Given(option, key, str(value))
            request = problems.attempt(_written, request, given, syntax, where) or request
    problems.raise_if_any()
    return request


def _entries(path: Path, syntax: PromptSyntax) -> Iterator[tuple[str, str | Keys]]:
    """The lines and tables of a file, each with its place for messages."""
    text, suffix = read_text(path), path.suffix.lower()
    if suffix not in _EMPTY_FIX:
        for number, line in enumerate(text.split("\n"), start=1):
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
