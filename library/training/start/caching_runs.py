"""The options of commands that fill caches for a training: all that training has. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from library.options.caching_tools import LatentCachingOptions, TextCachingOptions
from library.training.run import TrainingRun


@dataclass(frozen=True)
class CachingRun(TrainingRun):
    """A run that trains nothing."""

    @property
    def trains_text(self) -> bool:
        return False


@dataclass(frozen=True)
class LatentCachingRun(CachingRun):
    caching: LatentCachingOptions


@dataclass(frozen=True)
class TextCachingRun(CachingRun):
    caching: TextCachingOptions
