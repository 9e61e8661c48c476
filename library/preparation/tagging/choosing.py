"""A picture's probabilities -> its tags, as they are written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from library.data.scan.folders import name_some
from library.options.tagging_tools import TagChoiceOptions
from library.preparation.tagging.tables import Label, Table
from library.problems import warn
from library.wording import plural

SHORT = 3  # characters of a tag whose underscore is part of a face: ^_^, o_o
_CHOICES = ("rating", "quality")  # categories of which the most probable tag is written, if any


class TagChooser:
    """Chooses among the tags of a table. What each tag is written as is known before the first picture."""

    def __init__(self, table: Table, options: TagChoiceOptions) -> None:
        self._options = options
        self._written = [_written(label, options) for label in table.labels]
        self._category = np.array([label.category for label in table.labels])
        thresholds = [options.threshold(label.category) for label in table.labels]
        self._thresholds = np.array(thresholds, np.float32)
        self._is_common = ~np.isin(self._category, _CHOICES)
        self._by_probability = table.layout in ("mapping", "metadata")
        # Tables of WD14 have ratings that exclude one another; elsewhere the best may be none.
        self._best_is_true = table.layout == "csv"
        self._warn_of_idle()

    def choose(self, probabilities: np.ndarray) -> list[str]:
        """The tags to write, in order. probabilities: float32, (tags,)."""
        options = self._options
        (found,) = np.nonzero((probabilities >= self._thresholds) & self._is_common)
        if self._by_probability:
            found = found[np.argsort(-probabilities[found], kind="stable")]
        if options.character_tags_first:
            is_character = self._category[found] == "character"
            found = np.concatenate([found[is_character], found[~is_character]])
        tags = [tag for index in found for tag in self._written[index]]
        quality, rating = self._best("quality", probabilities), self._best("rating", probabilities)
        for is_first, is_last, best in (
            (options.use_quality_tags, options.use_quality_tags_as_last_tag, quality),
            (options.use_rating_tags, options.use_rating_tags_as_last_tag, rating),
        ):
            if is_first:
                tags = [*best, *tags]
            elif is_last:
                tags = [*tags, *best]
        wanted = [tag for tag in dict.fromkeys(tags) if tag and tag not in options.undesired_tags]
        first = [tag for tag in dict.fromkeys(options.always_first_tags) if tag in wanted]
        return [*first, *(tag for tag in wanted if tag not in first)]

    def join(self, tags: Sequence[str], before: str = "") -> str:
        """The text of tags, behind those of the text that was there before."""
        separator = self._options.caption_separator
        old = before.split(separator.strip() or separator)
        return separator.join(dict.fromkeys([*filter(None, (tag.strip() for tag in old)), *tags]))

    def _best(self, category: str, probabilities: np.ndarray) -> list[str]:
        (members,) = np.nonzero(self._category == category)
        if not members.size:
            return []
        best = members[probabilities[members].argmax()]
        is_true = self._best_is_true or probabilities[best] >= self._thresholds[best]
        return self._written[best] if is_true else []

    def _warn_of_idle(self) -> None:
        """Warn of options that name what the tagger does not have."""
        options, categories = self._options, set(self._category)
        for name in _CHOICES:
            for option in (f"use_{name}_tags", f"use_{name}_tags_as_last_tag"):
                if getattr(options, option) and name not in categories:
                    warn(f"--{option} has no effect: this tagger knows no {name} tags")
        known = {tag for written in self._written for tag in written}
        for option in ("undesired_tags", "always_first_tags"):
            unknown = [tag for tag in getattr(options, option) if tag not in known]
            if unknown:
                hint = "; with --remove_underscore write blanks" if options.remove_underscore else ""
                no = plural(len(unknown), "no tag", "no tags")
                warn(f"--{option}: this tagger writes {no} {name_some(unknown)}{hint}")


def _written(label: Label, options: TagChoiceOptions) -> list[str]:
    """What a tag is written as: several tags where a character's series is one of its own."""
    tags = [label.name]
    if options.character_tag_expand and label.category == "character" and label.name.endswith(")"):
        name, bracket, series = label.name[:-1].rpartition("(")
        tags = [name.rstrip("_"), series] if bracket and name else tags
    if options.remove_underscore:
        tags = [tag.replace("_", " ") if len(tag) > SHORT else tag for tag in tags]
    replacements = options.tag_replacement or {}
    return [replacements.get(tag, tag) for tag in tags]
