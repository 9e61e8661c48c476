"""Which pictures a run of the generator draws, in which order and with which seeds. Imports no torch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from library.generation.request import PromptRequest
from library.options.drawing_prompts import GeneratorOrderOptions
from library.problems import Problems
from library.randomness import derive_seed, keyed_random


def plan_pictures(
    prompts: Sequence[PromptRequest],
    *,
    seed: int | None,
    n_iter: int = 1,
    images_per_prompt: int = 1,
    order: GeneratorOrderOptions | None = None,
) -> list[PromptRequest]:
    """One request per picture, each with its seed, in the order of drawing: all prompts, n_iter times.
    Choices of prompts are made by their picture's seed; all that an enumeration gives have one seed.

    A prompt's own seeds go to its first pictures. A run of one picture uses `seed` itself; otherwise a
    picture's seed (31 bits) depends only on `seed`, the prompt's place, the iteration and the picture's
    number within it; where all prompts have the same seeds not on the prompt's place, and the first is
    `seed` itself.

    seed: None for a random one.
    Raises UserError with everything that is wrong with what choices give.
    """
    order = order or GeneratorOrderOptions()
    seed = random.SystemRandom().randrange(2**31) if seed is None else seed
    problems, pictures = Problems(), list[PromptRequest]()
    alone = len(prompts) * n_iter * images_per_prompt == 1
    for iteration in range(n_iter):
        places = list(range(len(prompts)))
        if order.shuffle_prompts:
            keyed_random(seed, "shuffle", iteration).shuffle(places)
        for place in places:
            for number in range(images_per_prompt):
                drawn = derive_seed(seed, "picture", iteration, place, number) % 2**31
                if order.iter_same_seed:
                    drawn = derive_seed(seed, "iteration", iteration, number) % 2**31
                if alone or (order.iter_same_seed and iteration == number == 0):
                    drawn = seed
                own = seeds_of(prompts[place])[iteration * images_per_prompt + number :]
                drawn = own[0] if own else drawn
                chosen = problems.attempt(prompts[place].chosen, drawn) or []
                pictures += [replace(one, seed=drawn, more_seeds=(), choices=None) for one in chosen]
    problems.raise_if_any()
    return pictures


def seeds_of(prompt: PromptRequest) -> tuple[int, ...]:
    """The seeds that a prompt asks for, one per picture."""
    return () if prompt.seed is None else (prompt.seed, *prompt.more_seeds)
