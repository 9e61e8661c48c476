"""Options of the commands that only fill caches."""

from __future__ import annotations

from dataclasses import dataclass

from library.options.caching import CachingOptions
from library.options.fields import option, warn_when

_ALWAYS = "accepted: it is what this command does"


@dataclass(frozen=True)
class CacheCommandOptions:
    """Commands that fill caches."""

    sdxl: bool = option(False, "the model is SDXL; checked against the file, which decides")
    skip_existing: bool = option(
        False, "accepted: what is there and was made from the same is never made again"
    )


@dataclass(frozen=True)
class LatentCachingOptions(CachingOptions):
    """Caches of latents."""

    cache_latents: bool = option(True, _ALWAYS)
    cache_latents_to_disk: bool = option(True, _ALWAYS)

    def __post_init__(self) -> None:
        _only(self, "cache_latents", "cache_text_encoder_outputs")
        super().__post_init__()


@dataclass(frozen=True)
class TextCachingOptions(CachingOptions):
    """Caches of text-encoder outputs."""

    cache_text_encoder_outputs: bool = option(True, _ALWAYS)
    cache_text_encoder_outputs_to_disk: bool = option(True, _ALWAYS)

    def __post_init__(self) -> None:
        _only(self, "cache_text_encoder_outputs", "cache_latents")
        super().__post_init__()


def _only(options: CachingOptions, done: str, left: str) -> None:
    """Cache one thing on disk, and not the other, whatever a training's options say."""
    for name in (left, f"{left}_to_disk"):
        warn_when((getattr(options, name), name, f"has no effect: tools/{left}.py does it"))
        object.__setattr__(options, name, False)
    for name in (done, f"{done}_to_disk"):
        object.__setattr__(options, name, True)
    if left == "cache_latents":
        object.__setattr__(options, "vae_batch_size", CachingOptions.vae_batch_size)
    else:
        object.__setattr__(options, "text_encoder_batch_size", CachingOptions.text_encoder_batch_size)
