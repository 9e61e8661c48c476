"""Which words a network changes most: each alone through the text encoder, with it and without it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from library.console import progress_bar
from library.models import check_source, load_model
from library.models.text import BOS, EOS, encode_chunks, vocabulary
from library.network.loading import check_network_file, open_network
from library.options.network_tools import InterrogateNetworkOptions
from library.problems import Problems, UserError

MOST = 100  # words that are listed


def interrogate(options: InterrogateNetworkOptions) -> None:
    """Print the words that differ most, the mean difference first."""
    problems = Problems()
    problems.attempt(check_source, options.sd_model, v2=options.v2)
    problems.attempt(check_network_file, options.model)
    problems.raise_if_any()
    model = load_model(options.sd_model)
    if len(model.text_encoders) > 1:
        cause = "has two text encoders, and words are looked at in one"
        raise UserError.of(options.sd_model, cause, "use a model of SD 1.x or 2.x")
    model.check_clip_skip(options.clip_skip)
    network, text_encoder = open_network(model, options.model), model.text_encoders[0]
    if not any(module.part == "te" for module in network.by_name.values()):
        raise UserError.of(options.model, "changes no text encoder, so no word differs")
    network.attach()
    words = vocabulary()
    differences = word_differences(
        text_encoder,
        lambda is_on: network.set_multiplier(float(is_on)),
        len(words),
        batch_size=options.batch_size,
        clip_skip=options.clip_skip,
    )
    for number in differences.argsort(descending=True)[:MOST].tolist():
        print(f"{float(differences[number]):.6f}  {number:5d}  {words[number]}")


@torch.no_grad()
def word_differences(
    text_encoder: PreTrainedModel,
    switch: Callable[[bool], None],
    count: int,
    *,
    batch_size: int,
    clip_skip: int | None,
) -> Tensor:
    """The mean absolute difference of the states of (start, word, end), for each word: (count,).

    switch: turns the network on (True) or off.
    clip_skip: which layer from the end; 1 is the last, as None is.
    """
    found = []
    for start in progress_bar(range(0, count, batch_size), desc="words", unit="batch"):
        words = torch.arange(start, min(start + batch_size, count))
        ids = torch.stack([torch.full_like(words, BOS), words, torch.full_like(words, EOS)], 1)  # (n, 3)
        states = []
        for is_on in (True, False):
            switch(is_on)
            states.append(encode_chunks(text_encoder, ids[:, None], clip_skip))  # (n, 3, width)
        found.append((states[0] - states[1]).abs().mean((1, 2)))
    return torch.cat(found)
