"""The words that train_textual_inversion.py learns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from library.options.fields import below, option, refuse, warn_when
from library.paths import name_fault

EmbeddingFormat = Literal["pt", "ckpt", "safetensors"]


@dataclass(frozen=True)
class TextualInversionOptions:
    """Words."""

    token_string: tuple[str, ...] = option(
        (), "word to learn, which captions contain; several are learned together", metavar="WORD"
    )
    init_word: tuple[str, ...] = option(
        (),
        "word whose meaning the new one begins with; with several words one for each (default: at random)",
        metavar="WORD",
    )
    num_vectors_per_token: int = option(1, "vectors of each word: each takes one of 75 places", metavar="N")
    weights: Path | None = option(None, "embedding file to go on from", metavar="FILE")
    use_object_template: bool = option(False, "train on phrases such as 'a photo of WORD', not on captions")
    use_style_template: bool = option(
        False, "train on phrases such as 'a painting in the style of WORD', not on captions"
    )
    preserve_norm: bool = option(
        False, "after each step give vectors the length that those of the model's own words have"
    )
    save_model_as: EmbeddingFormat = option(
        "pt", "format of the embedding; safetensors carries metadata and never runs code"
    )

    def __post_init__(self) -> None:
        words = self.token_string
        refuse(
            (not words, "token_string", "is needed: the word to learn, e.g. <my-cat>"),
            *((not _is_word(word), "token_string", f"{word!r} is not one word: {_RULE}") for word in words),
            (len(set(words)) != len(words), "token_string", "names a word twice"),
            (
                len(set(self.file_names.values())) != len(set(words)),
                "token_string",
                "has words whose files would have one name: <, > and the like are left out of names",
            ),
            (
                self.init_word and len(self.init_word) != len(words),
                "init_word",
                f"has {len(self.init_word)} words for {len(words)} --token_string",
            ),
            *below(1, self, "num_vectors_per_token"),
            (
                self.num_vectors_per_token > 75,
                "num_vectors_per_token",
                "must be 75 or less: a caption has 75 places",
            ),
            (
                self.weights is not None and len(words) > 1,
                "weights",
                "is for one --token_string: a file has one word",
            ),
            (
                self.use_object_template and self.use_style_template,
                "use_object_template",
                "contradicts --use_style_template",
            ),
        )
        warn_when(
            (
                self.weights is not None and self.init_word,
                "init_word",
                "has no effect with --weights, which has the vectors to begin with",
            ),
        )

    @property
    def file_names(self) -> dict[str, str]:
        """What the file of each word is called, without suffix: programs know a word by its file, and a dot
        or <, > break their prompts.
        """
        return {word: _file_name(word) for word in self.token_string}

    @property
    def uses_templates(self) -> bool:
        """Whether captions are left aside."""
        return self.use_object_template or self.use_style_template


_RULE = "no blanks, commas or brackets, which prompts give a meaning of their own"


def _is_word(word: str) -> bool:
    return bool(word) and not any(character.isspace() or character in ",()[]|\\" for character in word)


def _file_name(word: str) -> str:
    name = "".join(character for character in word if character not in '<>:"/|?*.').strip("-_") or "word"
    return f"{name}_" if name_fault(name) else name
