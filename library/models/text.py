"""Captions -> token ids -> hidden states, in chunks of 75 tokens for long captions.

A text encoder takes 77 ids: start, 75 of the caption, end. Longer captions are split into chunks, which are
encoded separately and joined again: the first start, the 75 inner states of every chunk, the last end. The
ids are those of sd-scripts.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from library.problems import UserError
from library.unused_packages import hidden_from

if TYPE_CHECKING:
    from transformers import CLIPTokenizer, PreTrainedModel

TOKENIZER_FOLDER = Path(__file__).parent / "tokenizer"
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")

BOS, EOS = 49406, 49407
CHUNK = 75
_MEMO_SIZE = 100_000  # captions; about 1 kB each


class Tokenizer:
    """Captions -> ids, for one or more text encoders. Can be pickled into loader workers.

    max_token_length: 75 (None is the same), 150 or 225.
    pads: the padding id of each text encoder.
    words: added words and their ids. They match case-sensitively and as whole words; the longest wins.
    Results are memoized by caption.
    """

    def __init__(
        self,
        max_token_length: int | None = None,
        *,
        pads: tuple[int, ...] = (EOS,),
        words: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self.chunks = (max_token_length or CHUNK) // CHUNK
        self.pads = pads
        self.words = dict(words or {})
        self._memo: dict[str, tuple[Tensor, ...]] = {}

    def __call__(self, captions: list[str]) -> tuple[Tensor, ...]:
        """The ids for each text encoder, (captions, chunks, 77) int64."""
        new = [caption for caption in dict.fromkeys(captions) if caption not in self._memo]
        if len(self._memo) + len(new) > _MEMO_SIZE:
            self._memo.clear()
            new = list(dict.fromkeys(captions))
        self._memo |= zip(new, self._rows(new), strict=True)
        rows = [self._memo[caption] for caption in captions]
        return tuple(torch.stack(column) for column in zip(*rows, strict=True))

    def lengths(self, captions: list[str]) -> list[int]:
        """The number of tokens in each caption, without start and end; `__call__` truncates."""
        return [len(ids) for ids in self.content_ids(captions)]

    @property
    def identity(self) -> str:
        """A name for everything that the ids of a caption depend on, except the length they are cut to."""
        files = [(TOKENIZER_FOLDER / name).read_bytes() for name in ("merges.txt", "vocab.json")]
        pairs = hashlib.blake2b(b"".join(files), digest_size=8).hexdigest()
        added = f" {sorted(self.words.items())}" if self.words else ""
        return f"{pairs} {self.pads} {type(self).__name__}{added}"

    def content_ids(self, texts: list[str]) -> list[list[int]]:
        """Every text's ids, without start and end, of any length."""
        if not self.words:
            return content_ids(texts)
        pieces = [self._pieces(text) for text in texts]
        plain = iter(content_ids([piece for row in pieces for _, piece in row if piece not in self.words]))
        return [
            [number for _, piece in row for number in self.words.get(piece) or next(plain)] for row in pieces
        ]

    def _rows(self, captions: list[str]) -> list[tuple[Tensor, ...]]:
        """What `__call__` gives, caption by caption."""
        return [self._chunked(ids) for ids in self.content_ids(captions)]

    def _chunked(self, ids: list[int]) -> tuple[Tensor, ...]:
        return tuple(torch.tensor(chunk_ids(ids, self.chunks, pad)) for pad in self.pads)

    def ends(self, captions: list[str]) -> list[list[int]]:
        """For each caption the offsets in its text where its tokens end, without start and end tokens."""
        if not self.words:
            return _ends(captions)
        ends = []
        for caption in captions:
            row: list[int] = []
            for start, piece in self._pieces(caption):
                own = self.words.get(piece)
                inner = [len(piece)] * len(own) if own else _ends([piece])[0]
                row += [start + end for end in inner]
            ends.append(row)
        return ends

    def _pieces(self, text: str) -> list[tuple[int, str]]:
        """The text split at added words: the offset and the text of each piece."""
        pieces, place = [], 0
        for match in word_pattern(tuple(self.words)).finditer(text):
            pieces += [(place, text[place : match.start()]), (match.start(), match[0])]
            place = match.end()
        return [(start, piece) for start, piece in (*pieces, (place, text[place:])) if piece]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_memo": {}}


def chunk_ids(ids: list[int], chunks: int, pad: int = EOS) -> list[list[int]]:
    """A caption's ids as `chunks` rows of 77: start, 75 ids, end; cut or padded to fit."""
    length = chunks * CHUNK
    whole = [BOS, *ids[:length], EOS]
    whole += [pad] * (length + 2 - len(whole))
    if chunks == 1:
        return [whole]
    rows = [[BOS, *whole[1 + start : 1 + start + CHUNK], whole[-1]] for start in range(0, length, CHUNK)]
    return rows if pad == EOS else [_end_row(row, pad) for row in rows]


def without_padding(tokens: Tensor) -> Tensor:
    """A mask (captions, 77) bool for ids (captions, 1, 77): True up to the end token, False for padding.

    Attention in text encoders is causal, so states before the padding do not depend on it.
    """
    ids = tokens[:, 0]
    ends = (ids == EOS).cumsum(-1)
    return (ends == 0) | ((ends == 1) & (ids == EOS))


def encode_chunks(text_encoder: PreTrainedModel, tokens: Tensor, clip_skip: int | None = None) -> Tensor:
    """Hidden states (captions, chunks * 75 + 2, width) for ids (captions, chunks, 77).

    clip_skip: k takes the output of the k-th layer from the end, then the final layer norm; None is 1.
    """
    count, chunks, _ = tokens.shape
    out = text_encoder(input_ids=tokens.flatten(0, 1), output_hidden_states=True)
    hidden = body(text_encoder).final_layer_norm(out.hidden_states[-(clip_skip or 1)])
    return join_chunks(hidden.unflatten(0, (count, chunks)))


def penultimate_chunks(text_encoder: PreTrainedModel, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
    """SDXL's (hidden states, pooled text) of a text encoder, for ids (captions, chunks, 77).

    Hidden states: (captions, chunks * 75 + 2, width), of the last layer but one, without the final norm.
    Pooled text: the projected output at the first end token of the first chunk, (captions, projected width);
    None for a text encoder without a projection.
    """
    count, chunks, _ = tokens.shape
    out = text_encoder(input_ids=tokens.flatten(0, 1), output_hidden_states=True)
    hidden = join_chunks(out.hidden_states[-2].unflatten(0, (count, chunks)))
    if not hasattr(text_encoder, "text_projection"):
        return hidden, None
    first_end = (tokens[:, 0] == EOS).int().argmax(dim=-1)
    rows = torch.arange(count, device=tokens.device)
    ends = out.last_hidden_state.unflatten(0, (count, chunks))[rows, 0, first_end]
    return hidden, text_encoder.text_projection(ends)


def check_clip_skip(text_encoder: PreTrainedModel, clip_skip: int | None) -> None:
    """Raises UserError when clip skip exceeds the text encoder's layers."""
    layers = text_encoder.config.num_hidden_layers
    if (clip_skip or 1) > layers:
        raise UserError.of("--clip_skip", f"is {clip_skip}, but the text encoder has {layers} layers")


def join_chunks(hidden: Tensor) -> Tensor:
    """(captions, chunks, 77, width) -> (captions, chunks * 75 + 2, width)."""
    inner = hidden[:, :, 1:-1].flatten(1, 2)  # (captions, chunks * 75, width)
    return torch.cat([hidden[:, 0, :1], inner, hidden[:, -1, -1:]], dim=1)


def width(text_encoder: PreTrainedModel) -> int:
    """The width of its hidden states."""
    return text_encoder.config.hidden_size


def body(text_encoder: PreTrainedModel) -> PreTrainedModel:
    """The module that has embeddings, layers and final norm; before transformers 5.6 it was wrapped."""
    return text_encoder.text_model if hasattr(text_encoder, "text_model") else text_encoder


def _end_row(row: list[int], pad: int) -> list[int]:
    """Where padding is not the end token, full chunks and empty ones get an end token as well."""
    row = list(row)
    if row[-2] not in (EOS, pad):
        row[-1] = EOS
    if row[1] == pad:
        row[1] = EOS
    return row


def vocabulary() -> list[str]:
    """The words and parts of words that CLIP's text encoders know, by their ids."""
    tokenizer = _load_tokenizer()
    return tokenizer.convert_ids_to_tokens(list(range(tokenizer.vocab_size)))


def content_ids(captions: list[str]) -> list[list[int]]:
    """The ids of CLIP's byte pairs for each caption, without start and end, of any length."""
    if not captions:
        return []
    return _load_tokenizer()(captions, add_special_tokens=False)["input_ids"]


def _ends(texts: list[str]) -> list[list[int]]:
    """For each text the offsets where its tokens end."""
    if not texts:
        return []
    found = _load_tokenizer()(texts, add_special_tokens=False, return_offsets_mapping=True)
    return [[end for _, end in offsets] for offsets in found["offset_mapping"]]


@lru_cache(maxsize=8)
def word_pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """Matches any of the words; where one begins or ends with a letter, only at a word boundary."""
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(
        "|".join(rf"{_border(w[0], '<!')}{re.escape(w)}{_border(w[-1], '!')}" for w in longest_first)
    )


def _border(letter: str, looking: str) -> str:
    return rf"(?{looking}\w)" if re.match(r"\w", letter) else ""


def is_own_word(word: str) -> bool:
    """Whether the vocabulary of CLIP has the word as it is: alone or at the beginning of others."""
    return word in _load_tokenizer().get_vocab()


@lru_cache(maxsize=1)  # one per process: it never changes and takes 20 MB
def _load_tokenizer() -> CLIPTokenizer:
    with hidden_from("transformers"):
        from transformers import CLIPTokenizer

    # Captions are short and batches small: threads gain nothing, and they warn when a loader forks later.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER_FOLDER)
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True  # we cut
    return tokenizer
