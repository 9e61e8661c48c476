"""States of texts that were encoded before: equal prompts, and the one negative prompt that many share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from library.generation.texts import PartText
from library.models.base import Condition

MOST = 64  # of SDXL's texts of 75 tokens, in float32: 40 MB


class KnownTexts:
    """The states of the last MOST texts, for calls with one model, its networks and one `TextSettings`."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Condition] = {}

    def encoded(
        self,
        texts: Sequence[PartText],
        encode: Callable[[Sequence[PartText]], Condition],
        under: Hashable,
    ) -> Condition:
        """A row for each text.

        texts: each once.
        encode: gives the rows of those that are not known.
        under: all besides the text that its states depend on: its length, strengths of networks.
        """
        new = [text for text in texts if (text, under) not in self._known]
        if new:
            states = encode(new)
            self._known |= {(text, under): states.rows([row]) for row, text in enumerate(new)}
        found = [self._known.pop((text, under)) for text in texts]
        self._known |= {(text, under): one for text, one in zip(texts, found, strict=True)}  # the latest
        for oldest in list(self._known)[:-MOST]:
            del self._known[oldest]
        return Condition.joined(found)
