"""Strengths of networks that a request chooses (--am), in place of the run's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, repeat

from library.network.network import Network

Networks = Sequence[tuple[Network, float]]  # each with the strength that the run gives it


@contextmanager
def at_strengths(networks: Networks, strengths: Sequence[float]) -> Iterator[None]:
    """Inside it the first network counts as the first strength says, and so on; the last one is that of all
    others too. Without any, the networks count as they did.
    """
    if not (networks and strengths):
        yield
        return
    for (network, _), strength in zip(networks, chain(strengths, repeat(strengths[-1])), strict=False):
        network.set_multiplier(strength)
    try:
        yield
    finally:
        for network, usual in networks:
            network.set_multiplier(usual)
