"""Where the generator's prompts come from, in which order they are drawn, and how their texts are read."""

from __future__ import annotations

from dataclasses import dataclass

from library.options.fields import below, option, refuse


@dataclass(frozen=True)
class GeneratorOrderOptions:
    """Order of prompts."""

    shuffle_prompts: bool = option(False, "draw the prompts in another order in each round of --n_iter")
    iter_same_seed: bool = option(
        False, "all prompts of a round of --n_iter have the same seed, those of the first --seed itself"
    )


@dataclass(frozen=True)
class GeneratorTextOptions:
    """Texts."""

    max_embeddings_multiples: int | None = option(
        None,
        "chunks of 75 tokens that a prompt may have, what follows is cut (default: as many as it needs)",
        metavar="N",
        zero_unset=True,
    )
    negative_scale: float | None = option(
        None,
        "scale of the negative prompt by itself; guidance by --scale is then from the empty text (default: "
        "guidance is from the negative prompt)",
        metavar="X",
    )

    def __post_init__(self) -> None:
        refuse(*below(1, self, "max_embeddings_multiples"), *below(0, self, "negative_scale"))
