"""Task: the module that is trained. The base trains the model itself: its denoiser and, if asked, text
encoders.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from library.data.dataset import Batch
from library.models.base import Condition, Model
from library.models.prompt_weights import encode_text
from library.options.training import ObjectiveOptions
from library.training.loss import min_snr_weight, squared_error
from library.training.objective import make_objective


@dataclass(frozen=True)
class TextTraining:
    """How the text encoders are trained: with which rate, and until which step (None: to the end)."""

    learning_rate: float
    stop_at: int | None = None


def may_skip_parameters(text: TextTraining | None, clip_skip: int | None) -> bool:
    """Whether a step may leave trained parameters without a gradient, which DDP has to be told.

    clip_skip leaves out the text encoder's last layers, stop_at all of it from then on.
    """
    return text is not None and (text.stop_at is not None or (clip_skip or 1) > 1)


class Task(nn.Module):
    """Holds the model and everything trainable; `task(batch)` is the loss of a batch.

    Subclasses change what is trained: they override `trained_parts`, `param_groups` and the two state
    methods.
    """

    saves_model = True  # whether the result is the model itself

    def __init__(
        self,
        model: Model,
        options: ObjectiveOptions,
        *,
        learning_rate: float,
        text: TextTraining | None = None,
        clip_skip: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = make_objective(options, model.prediction_type)
        model.prediction_type = self.objective.prediction  # what it will give, in previews and in its file
        self.options, self.clip_skip = options, clip_skip
        self.learning_rate, self.text = learning_rate, text
        model.requires_grad_(False)
        self.choose_trained()

    def choose_trained(self) -> None:
        """Turn gradients on for what this task trains; everything is frozen before."""
        self.model.denoiser.requires_grad_(True)
        if self.text is not None:
            self.model.text_encoders.requires_grad_(True)

    def param_groups(self) -> list[dict[str, Any]]:
        """Optimizer groups with their learning rate and the name it has in logs."""
        groups = [
            {"params": list(self.model.denoiser.parameters()), "lr": self.learning_rate, "name": "unet"}
        ]
        if self.text is not None:
            parameters = list(self.model.text_encoders.parameters())
            groups.append({"params": parameters, "lr": self.text.learning_rate, "name": "textencoder"})
        return groups

    def forward(self, batch: Batch) -> Tensor:
        """The loss of a batch: a weighted mean over its samples, as a float32 scalar."""
        x0 = self.latents(batch)
        condition = self.condition(batch)
        t = self.objective.sample_t(batch.u, *self.options.timestep_range)
        x = self.objective.noisy(x0, batch.noise, t)
        prediction = self.model.predict(x, t, condition, batch.sizes)
        loss = squared_error(prediction, self.objective.target(x0, batch.noise, t))
        return (loss * self.weighting(t) * batch.weights).sum() / batch.divisor

    def latents(self, batch: Batch) -> Tensor:
        """The batch's latents (batch, 4, height / 8, width / 8), encoded now unless they were cached."""
        if batch.latents is not None:
            return batch.latents
        with torch.no_grad(), torch.autocast(batch.pixels.device.type, enabled=False):
            return self.model.encode_images(batch.pixels, batch.posterior).float()

    def condition(self, batch: Batch) -> Condition:
        with torch.set_grad_enabled(self.trains_text(batch.position.step) and torch.is_grad_enabled()):
            return encode_text(self.model, batch.tokens, self.clip_skip)

    def trains_text(self, step: int) -> bool:
        """Whether text encoders are trained at this (0-based) step."""
        return self.text is not None and (self.text.stop_at is None or step < self.text.stop_at)

    def weighting(self, t: Tensor) -> Tensor | float:
        gamma = self.options.min_snr_gamma
        return min_snr_weight(self.objective.snr(t), gamma, self.objective.prediction) if gamma else 1.0

    def train(self, mode: bool = True) -> Task:
        """The VAE never trains, so its dropout and statistics stay off."""
        super().train(mode)
        self.model.vae.eval()
        return self

    def trained_tensors(self) -> dict[str, Tensor]:
        """What is trained, by the names of a checkpoint file: what a state must hold to go on exactly."""
        parts = ["unet", "text_encoder"] if self.text is not None else ["unet"]
        return {key: value for part in parts for key, value in self.model.part_weights(part).items()}

    def load_trained_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `trained_tensors` gave, bit for bit."""
        self.model.load_part_weights("unet", tensors)
        if self.text is not None:
            self.model.load_part_weights("text_encoder", tensors)

    def save(
        self,
        path: Path,
        *,
        form: str,
        dtype: torch.dtype | None,
        metadata: dict[str, str] | None,
        epoch: int,
        step: int,
    ) -> None:
        """Write the result under its final name, whole."""
        self.model.save(path, form, dtype=dtype, metadata=metadata, epoch=epoch, global_step=step)
