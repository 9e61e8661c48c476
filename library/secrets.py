"""Tokens: never shown and never written."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

HIDDEN = "***"
# Where huggingface_hub and wandb look for theirs.
_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
# A token in a line of TOML or JSON, which the parser's messages quote.
_TOKEN_LINE = re.compile(r"""((?:token|api_key)(?:["']?\s*=|"\s*:)\s*)\S+""")
# A token among the words of a command line.
_TOKEN_OPTION = re.compile(r"(--?[\w-]*(?:token|api[_-]key)(?:=|\s+))\S+")
# A password in an address.
_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)")


@dataclass(frozen=True, repr=False)
class Secret:
    """A token as an option's value. Only `reveal` shows it; JSON and TOML refuse to write it."""

    _text: str

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__


def hide_tokens(text: str, *known: Secret | None) -> str:
    """The text without the known tokens, those of the environment, and whatever looks like one of the hub or
    like a password in an address.
    """
    found = [secret.reveal() for secret in known if secret is not None]
    found += [os.environ[name] for name in _VARIABLES if os.environ.get(name)]
    for token in found:
        text = text.replace(token, HIDDEN)
    text = _HUB_TOKEN.sub(HIDDEN, text)
    return _PASSWORD.sub(rf"\1{HIDDEN}", _TOKEN_LINE.sub(rf"\1{HIDDEN}", text))


def shown_command(words: Sequence[str]) -> str:
    """A command line without tokens, whichever option they are for."""
    return _TOKEN_OPTION.sub(rf"\1{HIDDEN}", hide_tokens(" ".join(words)))


def hide_words(words: list[str], given: list[tuple[str, str]]) -> None:
    """Replace tokens in a command line, in place. given: (flag, token) of each."""
    for index, word in enumerate(words):
        for flag, token in given:
            if word in (token, f"{flag}={token}"):
                words[index] = word.removesuffix(token) + HIDDEN
