"""What train_textual_inversion.py has beside the words themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from library.options.fields import option, refuse, warn_when
from library.options.words import WordOptions

EmbeddingFormat = Literal["pt", "ckpt", "safetensors"]


@dataclass(frozen=True)
class TextualInversionOptions(WordOptions):
    """Words."""

    weights: Path | None = option(None, "embedding file to go on from", metavar="FILE")
    use_object_template: bool = option(False, "train on phrases such as 'a photo of WORD', not on captions")
    use_style_template: bool = option(
        False, "train on phrases such as 'a painting in the style of WORD', not on captions"
    )
    save_model_as: EmbeddingFormat = option(
        "pt", "format of the embedding; safetensors carries metadata and never runs code"
    )

    def __post_init__(self) -> None:
        words = self.token_string
        refuse(
            (not words, "token_string", "is needed: the word to learn, e.g. <my-cat>"),
            *self.checks(),
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
    def uses_templates(self) -> bool:
        """Whether captions are left aside."""
        return self.use_object_template or self.use_style_template
