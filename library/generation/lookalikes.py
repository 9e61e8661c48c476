"""Look-alikes: what stands in a prompt's texts and looks like an option, or like another program's syntax. It
is drawn as text, as users of such words may want, but not without a warning. Imports no torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from library.generation.prompt_options import PromptSyntax
from library.wording import shortened

_DASH = "\u2010-\u2015\u2212"  # hyphens, en and em dashes, minus: what text programs make of hyphens
_LOOKALIKE = re.compile(  # networks, wildcards; -w 640, –w 640, and after a tab --w 640; --7, --\u0435
    r"<(?:lora|lyco|lycoris|hypernet):[^<>]{1,200}>|__[\w./*-]{1,100}__"
    rf"|(?<!\S)(?:[-{_DASH}]|[-{_DASH}]{{2}})(?P<name>[A-Za-z]{{1,4}})(?=\s+\S)"
    r"|(?<!\S)--(?:\d|[^\W\d_a-zA-Z])\S{0,20}"
)


@dataclass
class Lookalikes:
    """Those of a prompt, or of a file of them: one warning of each kind, however many there are.

    syntax: the options that prompts may have.
    """

    syntax: PromptSyntax
    _found: dict[str, _Kind] = field(default_factory=dict)  # by what they look like

    def look(self, text: str, *, where: str, in_table: bool = False) -> None:
        """Find those of a text, in which options are not looked for any more.

        where: what warnings are about, e.g. a file and its line.
        in_table: whether it is of a TOML or JSON file, where options are keys of their own.
        """
        for found in _LOOKALIKE.finditer(text):
            looks = self._looks(found[0], found["name"], in_table)
            if looks is None:
                continue
            kind = self._found.setdefault(looks, _Kind(where, found[0]))
            kind.count += 1

    def warnings(self) -> list[str]:
        """A line for each kind."""
        lines = []
        for looks, kind in self._found.items():
            more = f" ({kind.count} of them in all)" if kind.count > 1 else ""
            text = repr(shortened(kind.text))
            lines.append(f"{kind.where}: {text} is part of the text; it looks like {looks}{more}")
        return lines

    def _looks(self, text: str, name: str | None, in_table: bool) -> str | None:
        """What a match looks like, and what to do; None for what is something else."""
        if text.startswith(("<", "__")):
            return self._looks_named(text)
        if name is None:
            is_number = text[2].isdigit()
            return f"an option, but no option {'is a number' if is_number else 'has such letters'}"
        option = name.lower()
        if option not in self.syntax.options and option not in self.syntax.not_yet:
            return None
        if in_table:
            key = next((key for key, meant in self.syntax.keys.items() if meant == option), None)
            return f"an option: write it as the key {key}"
        return f"an option: write --{option} after a blank"

    def _looks_named(self, text: str) -> str | None:
        """The same of a network or a wildcard, which have files where options of the command name folders."""
        has_folders = self.syntax.has_folders
        if text.startswith("<"):
            where = "--lora_dir says where they are" if has_folders else "previews have what is trained alone"
            return f"a network in AUTOMATIC1111's syntax: {where}"
        if self.syntax.find_wildcard is not None:
            return None
        where = "--wildcard_dir says where its lines are" if has_folders else "previews have none"
        return f"a wildcard: {where}"


@dataclass
class _Kind:
    """Look-alikes of a kind. where, text: the first one's place and words."""

    where: str
    text: str
    count: int = 0
