"""Captions as the text encoder reads them: those of the first epochs, their tokens, and what is cut off."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from library.data.captions import kept_caption, sample_caption
from library.data.scan.records import Record
from library.data.tags import tags_of
from library.data.training_data import TrainingData

# Captions -> for each the offsets in its text at which its tokens end, in order. Passed in, as `data` has no
# tokenizer.
TokenEnds = Callable[[list[str]], list[list[int]]]
# A caption -> where (start, end) the words stand in it that are learned. Passed in likewise.
WordPlaces = Callable[[str], list[tuple[int, int]]]
BLOCK = 1000  # captions tokenized at once: a tokenizer's output is a hundred times as large as what is kept


@dataclass(frozen=True, kw_only=True)
class Look:
    """How the page shows the data.

    seed: of the random draws.
    token_ends: finds the tokens of captions.
    max_tokens: that the text encoder reads.
    total_steps, steps_per_epoch: of the run, for token warm-up.
    epochs: how many are shown.
    word_places: finds words that are learned; None when none are.
    """

    seed: int
    token_ends: TokenEnds
    max_tokens: int
    total_steps: int
    steps_per_epoch: int
    epochs: int = 3
    word_places: WordPlaces | None = None


@dataclass(frozen=True)
class Text:
    """A caption.

    tokens: their number.
    read: how many characters are within the token limit.
    words: where (start, end) words stand in it that are learned.
    """

    caption: str
    tokens: int
    read: int
    words: tuple[tuple[int, int], ...] = ()

    @property
    def is_cut(self) -> bool:
        return self.read < len(self.caption)


@dataclass(frozen=True)
class Texts:
    """An image's captions.

    whole: without random draws.
    epochs: of its first sample in the first epochs; empty for a held-out image, whose caption never changes.
    """

    record: Record
    whole: Text
    epochs: tuple[Text, ...]

    @property
    def longest(self) -> Text:
        return max((self.whole, *self.epochs), key=lambda text: text.tokens)


def training_texts(data: TrainingData, look: Look) -> list[Texts]:
    """The captions of every record, in order."""
    first = first_samples(data)

    def in_epoch(index: int, epoch: int) -> str:
        record = data.records[index]
        return sample_caption(
            record.caption,
            record.subset,
            seed=look.seed,
            epoch=epoch,
            sample=first[index],
            step=epoch * look.steps_per_epoch,
            total_steps=look.total_steps,
        )

    epochs = [[in_epoch(index, epoch) for epoch in range(look.epochs)] for index in range(len(data.records))]
    return _read(data.records, epochs, look)


def first_samples(data: TrainingData) -> dict[int, int]:
    """For each record in use the number of its first sample, the one that the page shows."""
    return {index: sample for sample, index in reversed(list(enumerate(data.samples)))}


def held_out_texts(data: TrainingData, look: Look) -> list[Texts]:
    """The captions of every record as validation sees them, without random draws."""
    return _read(data.records, [[] for _ in data.records], look)


def once_each(texts: Iterable[Texts]) -> list[Texts]:
    """Every image once, even if several datasets have it."""
    found: dict[Path, Texts] = {}
    for entry in texts:
        found.setdefault(entry.record.image, entry)
    return list(found.values())


def cut_texts(texts: Iterable[Texts]) -> list[Texts]:
    """Those with a caption that is cut off, the longest first."""
    return sorted((entry for entry in texts if entry.longest.is_cut), key=lambda e: -e.longest.tokens)


def same_captions(texts: Iterable[Texts]) -> list[tuple[str, list[Record]]]:
    """Captions that several training images share, with the images; those with most images first. Class
    tokens that stand in for a caption do not count.
    """
    groups: defaultdict[str, list[Record]] = defaultdict(list)
    for record in (entry.record for entry in texts):
        if not record.subset.is_reg and record.caption not in ("", record.subset.class_tokens):
            groups[record.caption].append(record)
    shared = [(caption, records) for caption, records in groups.items() if len(records) > 1]
    return sorted(shared, key=lambda group: (-len(group[1]), group[0]))


def count_tags(texts: Iterable[Texts]) -> list[tuple[str, int]]:
    """The tags of captions, with the number of images that have them; most first."""
    counts: Counter[str] = Counter()
    for record in (entry.record for entry in texts):
        counts.update(set(tags_of(record.caption, record.subset)))
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _read(records: list[Record], epochs: list[list[str]], look: Look) -> list[Texts]:
    whole = [kept_caption(record.caption, record.subset) for record in records]
    captions = dict.fromkeys([*whole, *(caption for row in epochs for caption in row)])
    texts = {text.caption: text for text in _measure(list(captions), look)}
    return [
        Texts(record, texts[caption], tuple(texts[c] for c in row))
        for record, caption, row in zip(records, whole, epochs, strict=True)
    ]


def _measure(captions: list[str], look: Look) -> Iterator[Text]:
    for start in range(0, len(captions), BLOCK):
        block = captions[start : start + BLOCK]
        for caption, ends in zip(block, look.token_ends(block), strict=True):
            yield _text(caption, ends, look)


def _text(caption: str, ends: list[int], look: Look) -> Text:
    limit = look.max_tokens
    words = tuple(look.word_places(caption)) if look.word_places else ()
    return Text(caption, len(ends), len(caption) if len(ends) <= limit else ends[limit - 1], words)
