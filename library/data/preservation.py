"""Preservation: for which text, beside a picture's own, a network must give what the model gives without it.

The text is the picture's finished caption with the trigger replaced by a word of its class, or an empty one.
It is asked at the same noisy picture; prior preservation (Ruiz et al. 2022, arXiv:2208.12242, eq. 2) asks it
of other pictures.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from library.options.preservation import Kind, PreservationOptions
from library.randomness import keyed_random


@dataclass(frozen=True)
class Preservation:
    """How texts that are to be preserved are made.

    kind: class: the trigger is replaced; blank: empty; both: one of the two for each sample.
    trigger, classes: of every picture; None, (): those of its folder's name.
    share: of the steps, above 0 to 1.
    """

    kind: Kind
    trigger: str | None = None
    classes: tuple[str, ...] = ()
    share: float = 1.0

    @classmethod
    def of(cls, options: PreservationOptions) -> Preservation | None:
        """What the options ask for; None for nothing."""
        if options.preserve is None:
            return None
        trigger = options.preserve_trigger and options.preserve_trigger.strip()
        classes = tuple(word.strip() for word in options.preserve_class)
        return cls(options.preserve, trigger, classes, options.preserve_share)

    def words_of(self, class_tokens: str | None) -> Words | None:
        """The trigger and the class words of a subset's pictures; None where either is unknown.

        class_tokens: of the subset: "sks dog".
        """
        first, _, rest = (class_tokens or "").strip().partition(" ")
        trigger, own = self.trigger or first, rest.strip()
        classes = self.classes or ((own,) if own else ())
        if not trigger or not classes:
            return None
        return Words(trigger, classes, tuple({*classes, own} - {""}))

    def is_due(self, seed: int, step: int) -> bool:
        """Whether a (0-based) step preserves."""
        return self.share == 1 or keyed_random(seed, "preservation step", step).random() < self.share

    def text(
        self, caption: str, class_tokens: str | None, *, seed: int, epoch: int, sample: int
    ) -> str | None:
        """The text for a sample's finished caption; None where there is nothing to preserve: the caption was
        dropped, or does not hold the trigger.
        """
        if not caption:
            return None
        draw = keyed_random(seed, "preservation", epoch, sample)
        is_blank = draw.random() < 0.5
        if self.kind == "blank" or (self.kind == "both" and is_blank):
            return ""
        words = self.words_of(class_tokens)
        return None if words is None else words.replaced(caption, draw.random())


@dataclass(frozen=True)
class Words:
    """What a trigger may become.

    trigger: "sks".
    classes: what takes its place, one of them.
    beside: words that may stand behind the trigger and go with it, as "dog" in "sks dog".
    """

    trigger: str
    classes: tuple[str, ...]
    beside: tuple[str, ...]

    def replaced(self, caption: str, draw: float) -> str | None:
        """The caption with one of the classes, the same everywhere; None where the trigger is not.

        draw: in [0, 1), which one.
        """
        word = self.classes[int(draw * len(self.classes))]
        text, count = self._pattern.subn(lambda match: word, caption)
        return text if count else None

    def is_in(self, caption: str) -> bool:
        return self._pattern.search(caption) is not None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """The trigger as whole words, as CLIP reads them: in any case; with the class behind it."""
        pattern = _whole(self.trigger)
        if self.beside:
            behind = "|".join(map(_whole, sorted(self.beside, key=len, reverse=True)))
            pattern += rf"(?:\s+(?:{behind}))?"
        return re.compile(pattern, re.IGNORECASE)


def _whole(words: str) -> str:
    """A pattern for words with any blanks between, not inside others."""
    inner = r"\s+".join(map(re.escape, words.split()))
    before = r"(?<!\w)" if words[0].isalnum() else ""
    after = r"(?!\w)" if words[-1].isalnum() else ""
    return f"{before}{inner}{after}"
