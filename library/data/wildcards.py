"""Choices in captions: `a {red|{light|dark} blue} car`. They may nest; `{{` and `}}` are braces."""

from __future__ import annotations

import functools
import random
import re
from typing import Union

_TOKEN = re.compile(r"\{\{|\{|\}+|\||[^{}|]+")

# A parsed text: each part is a text, or the alternatives of a choice, which are parsed texts themselves.
Part = Union[str, "tuple[Parts, ...]"]
Parts = tuple[Part, ...]


def expand_wildcards(text: str, rng: random.Random | None) -> str:
    """The text with one alternative of every choice `{a|b|c}`, all equally likely; without `rng` the first.

    Choices may nest. `{{` is a brace; `}}` is one where a `{{` is open, or where at most one choice is.
    Braces without partners, and `{}`, stay as they are.
    """
    if "{" not in text and "}" not in text:
        return text
    found, todo = [], list(reversed(_parse(text)))
    while todo:
        part = todo.pop()
        if isinstance(part, str):
            found.append(part)
        else:
            todo.extend(reversed(part[int(rng.random() * len(part)) if rng else 0]))
    return "".join(found)


@functools.lru_cache(maxsize=20_000)
def _parse(text: str) -> Parts:
    """Parse a text. A choice of one alternative becomes that alternative."""
    reader = _Reader()
    for token in _TOKEN.findall(text):
        reader.take(token)
    return reader.finish()


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
        elif len(choice) == 1:
            here.extend(choice[0])
        else:
            here.append(tuple(map(tuple, choice)))

    def finish(self) -> Parts:
        """The parsed text. Choices that were never closed become text."""
        while len(self.opened) > 1:
            first, *others = self.opened.pop()
            self.opened[-1][-1] += ["{", *first]
            for alternative in others:
                self.opened[-1][-1] += ["|", *alternative]
        return tuple(self.opened[0][0])
