"""Choices in captions: `a {red|{light|dark} blue} car`. They may nest; `{{` and `}}` are braces."""

from __future__ import annotations

import functools
import random
import re
from typing import Union

_TOKEN = re.compile(r"\{\{|\{|\}+|\||[^{}|]+")
_PROMPT_TOKEN = re.compile(r"\\[{}]|[{}|\\]|[^{}|\\]+")

_LONGEST_KEPT = 4000  # characters; what longer texts are parsed to is not kept, as it is many times as large

# A parsed text: each part is a text, or the alternatives of a choice, which are parsed texts themselves. What
# is no choice may stand as one of a single alternative, so that nothing is copied at every level.
Part = Union[str, "tuple[Parts, ...]"]
Parts = tuple[Part, ...]


def expand_wildcards(text: str, rng: random.Random | None) -> str:
    """The text with one alternative of every choice `{a|b|c}`, all equally likely; without `rng` the first.

    Choices may nest. `{{` is a brace; `}}` is one where a `{{` is open, or where at most one choice is.
    Braces without partners, and `{}`, stay as they are. Takes time in proportion to the text's length.
    """
    if "{" not in text and "}" not in text:
        return text
    parts = _kept(text) if len(text) <= _LONGEST_KEPT else _parse(text)
    found, todo = [], list(reversed(parts))
    while todo:
        part = todo.pop()
        if isinstance(part, str):
            found.append(part)
        else:
            index = int(rng.random() * len(part)) if rng and len(part) > 1 else 0
            todo.extend(reversed(part[index]))
    return "".join(found)


def _parse(text: str) -> Parts:
    reader = _Reader()
    for token in _TOKEN.findall(text):
        reader.take(token)
    return reader.finish()


def parse_choices(text: str, *, deepest: int) -> Parts:
    """The choices of a prompt, which may nest. Here `\\{` and `\\}` are braces, and `{{` opens two choices.

    Raises ValueError when more than `deepest` are open in each other.
    """
    reader = _PromptReader()
    for token in _PROMPT_TOKEN.findall(text):
        reader.take(token)
        if len(reader.opened) > deepest + 1:
            raise ValueError(f"choices in at most {deepest} others")
    return reader.finish()


_kept = functools.lru_cache(maxsize=20_000)(_parse)


class _Reader:
    """Alternatives so far, of the whole text (which is like a choice of one) and of each choice that is open;
    beside them, how many `{{` are open in each.
    """

    def __init__(self) -> None:
        self.opened: list[list[list[Part]]] = [[[]]]
        self.braces = [0]

    def take(self, token: str) -> None:
        if token == "{":
            self.opened.append([[]])
            self.braces.append(0)
        elif token == "|" and len(self.opened) > 1:
            self.opened[-1].append([])
        elif token[0] == "}":
            self.close(len(token))
        else:
            self.braces[-1] += token == "{{"
            self.opened[-1][-1].append("{" if token == "{{" else token)

    def close(self, count: int) -> None:
        """Take `count` closing braces in a row: what was opened last is closed first."""
        while count:
            is_single = len(self.opened) == 1 or (len(self.opened) == 2 and not self.braces[0])
            if count >= 2 and (self.braces[-1] or is_single):
                self.opened[-1][-1].append("}")
                self.braces[-1] = max(0, self.braces[-1] - 1)
                count -= 2
            else:
                self.close_choice()
                count -= 1

    def close_choice(self) -> None:
        if len(self.opened) == 1:
            self.opened[-1][-1].append("}")
            return
        choice = self.opened.pop()
        self.braces.pop()
        here = self.opened[-1][-1]
        if choice == [[]]:
            here.append("{}")
        else:
            here.append(tuple(map(tuple, choice)))

    def finish(self) -> Parts:
        """The parsed text. Choices that were never closed become text."""
        while len(self.opened) > 1:
            first, *others = self.opened.pop()
            parts: list[Part] = ["{", *first]
            for alternative in others:
                parts += ["|", *alternative]
            self.opened[-1][-1].append((tuple(parts),))
        return tuple(self.opened[0][0])


class _PromptReader(_Reader):
    """One for prompts, where a backslash makes braces text."""

    def take(self, token: str) -> None:
        if token == "}":
            self.close_choice()
        elif token in ("\\{", "\\}"):
            self.opened[-1][-1].append(token[1])
        else:
            super().take(token)
