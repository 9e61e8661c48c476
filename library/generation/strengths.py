"""Networks that pictures are drawn with, and their strengths, which a request may choose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path

from library.generation.request import PromptRequest
from library.network.block_weights import named_block_weights
from library.network.merged_for_now import MergedForNow
from library.network.network import Network

Networks = Sequence[tuple[Network, float]]  # each with the strength that the run gives it


@dataclass(frozen=True)
class NetworksInUse:
    """The networks of a run.

    given: those that are always there, attached, with the run's own strengths.
    named: those that prompts name, detached, by their files.
    merged: makes the given ones part of the weights instead; None: they stand beside them.
    """

    given: Networks = ()
    named: Mapping[Path, Network] = field(default_factory=dict)
    merged: MergedForNow | None = None

    @contextmanager
    def of(self, request: PromptRequest) -> Iterator[Mapping[Network, frozenset[int]]]:
        """Inside it, networks count as the request says. Of its strengths the first is that of the first
        given network, the last one that of all others too, with block weights in place of the network's own
        where it has some; without any, networks count as always.

        Gives the parts of the prompt that each network belongs to: the first of the given ones to the first
        part, and so on; those that a prompt names to the part that names them.
        """
        chosen = request.strengths
        usual = [(network, strength, network.block_weights) for network, strength in self.given]
        if chosen:
            for (network, _), own in zip(self.given, chain(chosen, repeat(chosen[-1])), strict=False):
                blocks = named_block_weights(own.blocks) if own.blocks else None
                network.set_multiplier(own.strength, blocks=blocks)
        if self.merged is not None:
            self.merged.update()
        named = [(self.named[one.path], one) for one in request.networks]
        for network, one in named:
            network.set_multiplier(one.unet, text=one.text, blocks=one.blocks)
            network.attach()
        parts: dict[Network, frozenset[int]] = {
            network: frozenset({number}) for number, (network, _) in enumerate(self.given)
        }
        for network, one in named:
            parts[network] = parts.get(network, frozenset()) | {one.part}
        try:
            yield parts
        finally:
            for network, _ in named:
                network.detach()
            if chosen:
                for network, strength, blocks in usual:
                    network.set_multiplier(strength, blocks=blocks)
