"""Batch: what one training step sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from library.data.plan import Position

if TYPE_CHECKING:
    import torch

    from library.data.preservation import Preservation


@dataclass(frozen=True)
class Needs:
    """What a task needs in its batches beyond what every batch has. What is not needed costs nothing.

    pixels: the pictures, even where their latents are cached.
    hints: the conditioning images as pictures; they are then not used as masks.
    holes: masks of what an inpainting model paints anew.
    templates: phrases, one of which, drawn at random, takes the place of every caption.
    preservation: which texts a network must leave as they are; None: none.
    """

    pixels: bool = False
    hints: bool = False
    holes: bool = False
    templates: tuple[str, ...] = ()
    preservation: Preservation | None = None


@dataclass
class Batch:
    """What one step sees; b samples of one size, this rank's share of a global batch.

    A latent has c channels and one place for p x p pixels, as the family's `LatentSpace` says.

    pixels: (b, 3, h, w) in -1..1; None when latents are cached, unless the task needs them.
    latents: (b, c, h/p, w/p), scaled; None when they are not cached.
    masks: (b, 1, h/p, w/p) float32 in 0..1, how much each place counts; None when no sample has a mask.
    tokens: what the tokenizer gives: per text encoder (b, chunks, 77) int64; after them, when captions have
        weights, the weight of each position, float32. Empty when text-encoder outputs are cached.
    text: the cached text-encoder outputs by name, each (b, ...), or None.
    captions: the final captions.
    sizes: (b, 6) int64: original height, width; crop top, left in the resized image (mirrored when the image
        is); target height, width.
    weights: (b,) float32, loss weights: prior_loss_weight for regularization images, 0 for padding, else 1.
    divisor: loss = (loss per sample x weights).sum() / divisor; the number of real samples in the global
        batch, per process.
    noise: (b, c, h/p, w/p) standard normal.
    u: (b,) float32 in 0..1, where the timestep lies in the range that is trained.
    posterior: (b, c, h/p, w/p) standard normal, to sample the VAE's posterior; None when latents are cached.
    network_multiplier: the strength of networks in this batch.
    attributes: each sample's custom_attributes.
    position: where the batch stands in the run.
    names: base names of the images, for messages.
    disturbance: (b, c, h/p, w/p), added to the noise in the noisy latents but not in the target; None for
        nothing.
    offset: normal numbers (b, c, 1, 1) and strengths (b, 1, 1, 1) of a noise offset that depends on the
        latents and is added once they are known; None when the noise is complete.
    hints: (b, 3, h, w) in 0..1, the conditioning images, resized, cropped and mirrored exactly as their
        pictures; None unless the task needs them.
    holes: (b, 1, h, w) float32, 1 where an inpainting model paints anew, else 0; None unless the task needs
        them.
    kept: (b,) float32, 1 where a text is to be left as it is, else 0; None when that is nowhere.
    kept_tokens, kept_text: of these texts, as `tokens` and `text` are of the captions.
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
    hints: torch.Tensor | None = None
    holes: torch.Tensor | None = None
    kept: torch.Tensor | None = None
    kept_tokens: tuple[torch.Tensor, ...] = ()
    kept_text: dict[str, torch.Tensor] | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The batch with its tensors on a device; copies from pinned memory do not block."""
        return self.with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The batch with its tensors in pinned memory. torch's DataLoader calls this by name."""
        return self.with_tensors(lambda tensor: tensor.pin_memory())

    def with_tensors(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """The batch with `change` applied to every tensor."""
        import torch

        def changed(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(change, value))
            if isinstance(value, dict):
                return {name: change(tensor) for name, tensor in value.items()}
            return change(value) if isinstance(value, torch.Tensor) else value

        # A Position is a dataclass of numbers, not a tuple of tensors.
        names = [entry.name for entry in fields(self) if entry.name != "position"]
        return replace(self, **{name: changed(getattr(self, name)) for name in names})
