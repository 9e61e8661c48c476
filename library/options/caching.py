"""What is computed once before training instead of at every step: latents and text-encoder outputs."""

from __future__ import annotations

from dataclasses import dataclass

from library.options.fields import below, option, refuse, warn_when


@dataclass(frozen=True)
class CachingOptions:
    """Caches."""

    cache_latents: bool = option(
        False, "encode every image once, before training, and keep the latents in memory"
    )
    cache_latents_to_disk: bool = option(
        False, "keep the latents in files beside the images instead; later runs use them again"
    )
    vae_batch_size: int = option(
        1, "images the VAE encodes together when caching", metavar="N", zero_unset=True
    )
    cache_text_encoder_outputs: bool = option(
        False, "encode every caption once, before training; for text encoders that are not trained"
    )
    cache_text_encoder_outputs_to_disk: bool = option(
        False, "keep the text encoders' outputs in files beside the images instead"
    )
    text_encoder_batch_size: int = option(
        16, "captions the text encoders encode together when caching", metavar="N", zero_unset=True
    )
    skip_cache_check: bool = option(
        False, "use cache files as they are: only whether they are there is looked at"
    )

    cache_in_memory_limit: float | None = option(
        None,
        "most memory, in GB, for what was read from cache files, so that each is read once; 0 keeps nothing "
        "(default: a quarter of what is free)",
        metavar="GB",
    )

    @property
    def caches_latents(self) -> bool:
        """Whether latents are cached, in memory or on disk."""
        return self.cache_latents or self.cache_latents_to_disk

    @property
    def caches_text(self) -> bool:
        """Whether text-encoder outputs are cached, in memory or on disk."""
        return self.cache_text_encoder_outputs or self.cache_text_encoder_outputs_to_disk

    def __post_init__(self) -> None:
        refuse(
            *below(1, self, "vae_batch_size", "text_encoder_batch_size"),
            *below(0, self, "cache_in_memory_limit"),
        )
        to_disk = self.cache_latents_to_disk or self.cache_text_encoder_outputs_to_disk
        warn_when(
            (
                self.vae_batch_size != 1 and not self.caches_latents,
                "vae_batch_size",
                "has no effect without --cache_latents",
            ),
            (
                self.text_encoder_batch_size != 16 and not self.caches_text,
                "text_encoder_batch_size",
                "has no effect without --cache_text_encoder_outputs",
            ),
            (
                self.skip_cache_check and not to_disk,
                "skip_cache_check",
                "has no effect without caches on disk",
            ),
            (
                bool(self.cache_in_memory_limit) and not to_disk,
                "cache_in_memory_limit",
                "has no effect without caches on disk",
            ),
        )
