"""Where the generator's prompts come from, in which order they are drawn, and how their texts are read."""

from __future__ import annotations

from dataclasses import dataclass

from library.options.fields import option


@dataclass(frozen=True)
class GeneratorOrderOptions:
    """Order of prompts."""

    shuffle_prompts: bool = option(False, "draw the prompts in another order in each round of --n_iter")
    iter_same_seed: bool = option(
        False, "all prompts of a round of --n_iter have the same seed, those of the first --seed itself"
    )
