"""Memory and speed of drawing."""

from __future__ import annotations

from dataclasses import dataclass

from library.options.fields import option, refuse


@dataclass(frozen=True)
class MemoryOptions:
    """Memory and speed."""

    vae_batch_size: float | None = option(
        None,
        "pictures that the VAE decodes together (default 1, which needs least memory); below 1 it is a share "
        "of --batch_size",
        metavar="N",
    )
    vae_slices: int | None = option(
        None,
        "the VAE needs less memory: pictures above 1024 pixels are decoded in tiles whose edges are blended; "
        "any number means the same",
        metavar="N",
        zero_unset=True,
    )
    opt_channels_last: bool = option(False, "lay out convolutions as GPUs compute with them fastest")
    torch_compile: bool = option(
        False, "compile the U-Net's blocks (torch.compile): the first steps are slow, the others faster"
    )

    def __post_init__(self) -> None:
        size = self.vae_batch_size
        refuse(
            (size is not None and size <= 0, "vae_batch_size", "must be above 0"),
            (
                size is not None and size > 1 and size != int(size),
                "vae_batch_size",
                "must be a whole number, or a share below 1",
            ),
            (self.vae_slices is not None and self.vae_slices < 1, "vae_slices", "must be 1 or more"),
        )

    def vae_batch(self, batch_size: int) -> int:
        """How many pictures the VAE decodes together, of a batch."""
        size = self.vae_batch_size or 1
        return max(1, int(batch_size * size)) if size < 1 else int(size)
