"""Batch: what one training step sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from library.data.plan import Position

if TYPE_CHECKING:
    import torch

LATENT_CHANNELS = 4
PIXELS_PER_LATENT = 8  # per side: what the VAE of every supported family makes one latent of


@dataclass
class Batch:
    """What one step sees; b samples of one size, this rank's share of a global batch.

    pixels: (b, 3, h, w) in -1..1, or None when latents are cached.
    latents: (b, 4, h/8, w/8), scaled, or None.
    masks: (b, 1, h/8, w/8) float32 in 0..1, how much each place counts; None when no sample has a mask.
    tokens: what tokenize gives: per text encoder (b, chunks, 77) int64; after them, when captions have
        weights, those of the positions, float32. Empty when text-encoder outputs are cached.
    text: those outputs by name, each (b, ...), or None.
    captions: the final captions.
    sizes: (b, 6) int64: original height, width; crop top, left in the resized image (mirrored when the image
        is); target height, width.
    weights: (b,) float32, loss weights: prior_loss_weight for regularization images, 0 for padding, else 1.
    divisor: loss = (loss per sample x weights).sum() / divisor; the real samples of the global batch per
        process.
    noise: (b, 4, h/8, w/8) standard normal.
    u: (b,) float32 in [0, 1), becomes the timestep.
    posterior: (b, 4, h/8, w/8) standard normal, to sample what the VAE gives; None when latents are cached.
    network_multiplier: how strongly a network counts in this batch.
    attributes: each sample's custom_attributes.
    names: base names of the images, for messages.
    disturbance: (b, 4, h/8, w/8), added to the noise of the picture but not to the target; None: nothing.
    offset: normal numbers (b, 4, 1, 1) and strengths (b, 1, 1, 1) of a noise offset that waits for the
        latents; None when the noise is complete.
    """

    pixels: torch.Tensor | None
    latents: torch.Tensor | None
    masks: torch.Tensor | None
    tokens: tuple[torch.Tensor, ...]
    text: dict[str, torch.Tensor] | None
    captions: list[str]
    sizes: torch.Tensor
    weights: torch.Tensor
    divisor: float
    noise: torch.Tensor
    u: torch.Tensor
    posterior: torch.Tensor | None
    network_multiplier: float
    attributes: list[Mapping[str, Any]]
    position: Position
    names: list[str]
    disturbance: torch.Tensor | None = None
    offset: tuple[torch.Tensor, torch.Tensor] | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The batch with its tensors on a device; copies from pinned memory do not block."""
        return self.with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The batch with its tensors in pinned memory. torch's DataLoader calls this by name."""
        return self.with_tensors(lambda tensor: tensor.pin_memory())

    def with_tensors(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """The batch with each tensor changed."""
        import torch

        def changed(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(change, value))
            if isinstance(value, dict):
                return {name: change(tensor) for name, tensor in value.items()}
            return change(value) if isinstance(value, torch.Tensor) else value

        names = [entry.name for entry in fields(self) if entry.name != "position"]
        return replace(self, **{name: changed(getattr(self, name)) for name in names})
