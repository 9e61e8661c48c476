"""Captions and tags, edited."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import translate

from library.data.tags import split_outside_braces
from library.options.editing import EditingOptions

Tags = list[str]
Edit = Callable[[Tags], Tags]


@dataclass(frozen=True)
class Editor:
    """Edits texts one by one, the edits always in this order: pieces of text, tags replaced, removed, added,
    doubles, order, trigger word. Upper and lower case are the same when tags are looked for.

    Lines of a text are edited each for itself, choices {a|b} stay whole.

    pieces: of text, old and new.
    edits: of tags.
    separator: between tags; a space follows it where one did before.
    """

    pieces: tuple[tuple[str, str], ...]
    edits: tuple[Edit, ...]
    separator: str

    def edited(self, text: str) -> str:
        """A text with line ends and blank lines as they were; the same text if nothing of it changes."""
        return "".join(self._line(line) if line.strip() else line for line in text.splitlines(keepends=True))

    def _line(self, line: str) -> str:
        text = line.rstrip("\r\n")
        end = line[len(text) :]
        for old, new in self.pieces:
            text = text.replace(old, new)
        before = tags_in(text, self.separator)
        tags = before
        for edit in self.edits:
            tags = edit(tags)
        return (text if tags == before else join_tags(tags, self.separator)) + end


def make_editor(options: EditingOptions, texts: Iterable[str] = ()) -> Editor:
    """The editor that options ask for. texts: all there are, for the order of the most frequent tags."""
    separator = options.separator
    edits: list[Edit] = []
    if options.replace:
        edits.append(_replaced(dict(map(_pair, options.replace)), separator))
    if options.remove:
        edits.append(_removed(options.remove))
    if options.add or options.add_first:
        edits.append(_added(options.add_first, options.add))
    if options.dedupe:
        edits.append(_each_once)
    if options.sort == "name":
        edits.append(lambda tags: sorted(tags, key=str.casefold))
    elif options.sort == "frequency":
        edits.append(_by_frequency(texts, separator))
    if options.trigger_word:
        edits.append(_first(options.trigger_word.strip()))
    return Editor(tuple(map(_as_written, options.replace_text)), tuple(edits), separator)


def tags_in(text: str, separator: str) -> Tags:
    """The tags of a line, without empty ones; separators inside of choices {a, b|c} separate nothing."""
    return [tag for part in split_outside_braces(text, separator.strip()) if (tag := part.strip())]


def join_tags(tags: Sequence[str], separator: str) -> str:
    """Tags as a line: each separator with a space behind it."""
    return f"{separator.strip()} ".join(tags)


def _pair(given: str) -> tuple[str, str]:
    old, _, new = given.partition("=")
    return old.strip().casefold(), new.strip()


def _as_written(given: str) -> tuple[str, str]:
    old, _, new = given.partition("=")
    return old, new


def _replaced(pairs: dict[str, str], separator: str) -> Edit:
    def edit(tags: Tags) -> Tags:
        found = [
            tags_in(pairs[key], separator) if (key := tag.casefold()) in pairs else [tag] for tag in tags
        ]
        return [tag for some in found for tag in some]

    return edit


def _removed(patterns: Iterable[str]) -> Edit:
    matches = [_matcher(pattern) for pattern in patterns]
    return lambda tags: [tag for tag in tags if not any(match(tag.casefold()) for match in matches)]


def _matcher(pattern: str) -> Callable[[str], object]:
    """Matches a tag; * and ? stand for any signs, brackets for themselves."""
    return re.compile(translate(pattern.strip().casefold().replace("[", "[[]"))).match


def _added(first: Sequence[str], last: Sequence[str]) -> Edit:
    def edit(tags: Tags) -> Tags:
        there = {tag.casefold() for tag in tags}
        missing = [
            [tag.strip() for tag in some if tag.strip().casefold() not in there] for some in (first, last)
        ]
        return [*missing[0], *tags, *missing[1]]

    return edit


def _each_once(tags: Tags) -> Tags:
    return list({tag.casefold(): tag for tag in reversed(tags)}.values())[::-1]


def _by_frequency(texts: Iterable[str], separator: str) -> Edit:
    counts = Counter(
        tag.casefold() for text in texts for line in text.splitlines() for tag in tags_in(line, separator)
    )
    return lambda tags: sorted(tags, key=lambda tag: -counts[tag.casefold()])


def _first(word: str) -> Edit:
    return lambda tags: [word, *(tag for tag in tags if tag.casefold() != word.casefold())]
