"""Words that are learned: alone by train_textual_inversion.py, beside a network by train_network.py."""

from __future__ import annotations

from dataclasses import dataclass

from library.options.fields import Check, below, option, refuse, warn_when
from library.paths import name_fault


@dataclass(frozen=True)
class WordOptions:
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
    preserve_norm: bool = option(
        False, "after each step give vectors the length that those of the model's own words have"
    )

    def __post_init__(self) -> None:
        refuse(*self.checks())

    def checks(self) -> list[Check]:
        """What can be wrong with the words."""
        words = self.token_string
        return [
            *((not _is_word(word), "token_string", f"{word!r} is not one word: {_RULE}") for word in words),
            (len(set(words)) != len(words), "token_string", "names a word twice"),
            (
                len(set(self.file_names.values())) != len(set(words)),
                "token_string",
                "has words whose files would have one name: <, > and the like are left out of names",
            ),
            (
                words and self.init_word and len(self.init_word) != len(words),
                "init_word",
                f"has {len(self.init_word)} words for {len(words)} --token_string",
            ),
            *below(1, self, "num_vectors_per_token"),
            (
                self.num_vectors_per_token > 75,
                "num_vectors_per_token",
                "must be 75 or less: a caption has 75 places",
            ),
        ]

    @property
    def file_names(self) -> dict[str, str]:
        """What the file of each word is called, without suffix: programs know a word by its file, and a dot
        or <, > break their prompts.
        """
        return {word: _file_name(word) for word in self.token_string}


@dataclass(frozen=True)
class PivotalOptions(WordOptions):
    """Words that are learned with the network (pivotal tuning)."""

    embedding_lr: float | None = option(
        None, "learning rate of the words' vectors (default: --learning_rate)", metavar="X"
    )
    stop_embedding_training: int | None = option(
        None, "leave the words as they are from this step on; the network learns on", metavar="N"
    )
    save_embeddings: bool = option(
        False, "write each word's own embedding file beside the network's, too; programs read either"
    )

    def __post_init__(self) -> None:
        refuse(
            *self.checks(),
            *below(0, self, "embedding_lr"),
            *below(1, self, "stop_embedding_training"),
        )
        given = {
            "init_word": self.init_word,
            "num_vectors_per_token": self.num_vectors_per_token != 1,
            "preserve_norm": self.preserve_norm,
            "embedding_lr": self.embedding_lr is not None,
            "stop_embedding_training": self.stop_embedding_training is not None,
            "save_embeddings": self.save_embeddings,
        }
        nothing = "has no effect without --token_string"
        warn_when(*((value and not self.token_string, name, nothing) for name, value in given.items()))


_RULE = "no blanks, commas or brackets, which prompts give a meaning of their own"


def _is_word(word: str) -> bool:
    return bool(word) and not any(character.isspace() or character in ",()[]|\\" for character in word)


def _file_name(word: str) -> str:
    name = "".join(character for character in word if character not in '<>:"/|?*.').strip("-_") or "word"
    return f"{name}_" if name_fault(name) else name
