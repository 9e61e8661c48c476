"""The contract of a task: something that can be trained, from a batch to its loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from library.data.batch import Batch, Needs
from library.generation.strengths import Networks
from library.models.attention import Attention
from library.models.base import Condition, Model, Part
from library.models.casting import castable_layers, trained_weights_in
from library.models.condition import Control
from library.models.inpainting import masked_input
from library.models.prompt_weights import encode_text
from library.models.saving import Saving
from library.options.objective import ObjectiveOptions
from library.param_groups import ParamGroup
from library.training.diffusion.loss import ERRORS, HUBER_ERRORS, huber_width, mean_per_sample, weighting
from library.training.diffusion.noise import adaptive_strength, complete_noise
from library.training.diffusion.objective import make_objective
from library.training.tasks.components import Component


class Task(nn.Module, ABC):
    """Holds the model and everything that is trained; `task(batch)` is the loss of a batch.

    A kind of training is a subclass. It says what it trains: it turns gradients on for that after
    `super().__init__`, which froze the whole model, and gives the five methods that are abstract here. It
    overrides what else is different about it: what the model is told (`condition`), what it should give
    (`target`), how far off it is (`errors`), how much that counts (`weighting`).

    saves_model: whether the result is the model itself.
    needs: what it needs of a batch beyond what every batch has, such as hints.
    sample_losses: each sample's loss in the latest batch (batch,), for messages.
    """

    saves_model = False
    needs = Needs()
    sample_losses: Tensor | None = None

    def __init__(self, model: Model, options: ObjectiveOptions, *, clip_skip: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.objective = make_objective(options, model.prediction_type, ends_in_noise=model.zero_terminal_snr)
        # How it will predict, in previews and in its file.
        model.prediction_type = self.objective.prediction
        model.zero_terminal_snr = self.objective.ends_in_noise
        self.options, self.clip_skip = options, clip_skip
        if model.is_inpainting:
            self.needs = replace(self.needs, pixels=True, holes=True)
        self._layers: list[list[nn.Module]] | None = None  # what `computing_in` is about
        model.requires_grad_(False)

    # What a task says of itself.

    @abstractmethod
    def param_groups(self) -> list[ParamGroup]:
        """Optimizer groups of what is trained. Raises UserError when that is nothing."""

    @abstractmethod
    def components(self) -> list[Component]:
        """What is trained, by the part of the model it belongs to: the rows of the ledger."""

    @abstractmethod
    def trained_tensors(self) -> dict[str, Tensor]:
        """What is trained, by stable names: what a state must hold for an exact resume. Not copies."""

    @abstractmethod
    def load_trained_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Copy the values of `trained_tensors` back, bit for bit. Raises UserError when they do not fit."""

    @abstractmethod
    def save(self, path: Path, saving: Saving) -> None:
        """Write the result under its final name, whole."""

    def file_tensors(self) -> dict[str, Tensor] | None:
        """All that the result's file holds besides metadata: it is then written from a copy while training
        goes on. None: `save` writes it, and training waits. Not copies.
        """
        return None

    def needs_text_gradients(self, step: int) -> bool:
        """Whether gradients flow through the text encoders at this (0-based) step: because they are trained,
        or because something before or in them is (an embedding).
        """
        return False

    @property
    def control(self) -> Control | None:
        """What gives residuals for hints, in training and in previews; None where nothing does."""
        return None

    def use_attention(self, kind: Attention) -> None:
        """Choose how attention is computed. Raises UserError if it is not installed."""
        self.model.use_attention(kind)

    def use_gradient_checkpointing(self, on: bool) -> None:
        """Recompute activations in the backward pass, where there is one."""
        self.model.use_gradient_checkpointing(denoiser=on, text_encoders=on and self.needs_text_gradients(0))

    def blocks(self) -> list[nn.Module]:
        """The transformer and residual blocks that `--torch_compile` compiles."""
        return self.model.blocks()

    @property
    def networks(self) -> Networks:
        """Those that it trains, whose strength in previews prompts may choose."""
        return ()

    def trained_parts(self) -> list[Part]:
        """The parts of the model of which something is trained."""
        parts = self.model.parts.items()
        return [name for name, module in parts if any(p.requires_grad for p in module.parameters())]

    def trained_parameters(self) -> list[nn.Parameter]:
        """What the optimizer gets, over all groups."""
        return [parameter for group in self.param_groups() for parameter in group["params"]]

    def after_step(self) -> dict[str, Tensor]:
        """Change what is trained after an optimizer step, e.g. limit norms. Returns figures for logs, scalars
        on the device.
        """
        return {}

    def computing_in(self, dtype: torch.dtype) -> AbstractContextManager[None]:
        """Context manager; inside it, a forward and its backward pass compute with copies of trained weights
        in the type of mixed precision, made all at once instead of by autocast one by one.
        """
        if dtype == torch.float32:
            return nullcontext()
        if self._layers is None:
            beside = [child for child in self.children() if child is not self.model]
            self._layers = [castable_layers(part) for part in (*self.model.parts.values(), *beside)]
        return trained_weights_in(self._layers, dtype)

    # The way from a batch to its loss.

    def forward(self, batch: Batch) -> Tensor:
        """The loss of a batch: a weighted mean over its samples, as a float32 scalar."""
        t = self.objective.sample_t(batch.u, *self.options.timestep_range)  # (batch,)
        losses = self.losses(batch, t)
        self.sample_losses = losses.detach()
        return (losses * batch.weights).sum() / batch.divisor

    def losses(self, batch: Batch, t: Tensor) -> Tensor:
        """The loss of each sample (batch,) at timesteps t (batch,), float32."""
        x0 = self.latents(batch)
        condition = self.condition(batch)
        batch = self.with_noise(batch, x0)
        noise = batch.noise if batch.disturbance is None else batch.noise + batch.disturbance
        x = self.objective.noisy(x0, noise, t)
        prediction = self.model.predict(x, t, condition)
        errors = self.errors(prediction, self.target(batch, x0, x, t), t)  # (batch, channels, h, w)
        return mean_per_sample(errors, batch.masks) * self.weighting(t) + self.further_losses(batch, x, t)

    def latents(self, batch: Batch) -> Tensor:
        """The batch's latents (batch, channels, h, w), encoded now unless they are cached."""
        if batch.latents is not None:
            return batch.latents
        assert batch.pixels is not None and batch.posterior is not None
        with torch.no_grad(), torch.autocast(batch.pixels.device.type, enabled=False):
            return self.model.encode_images(batch.pixels, batch.posterior).float()

    def condition(self, batch: Batch) -> Condition:
        """What the denoiser is told about the batch, encoded now unless it is cached."""
        if batch.text is not None:
            condition = self.model.condition_from(batch.text)
        else:
            has_gradients = self.needs_text_gradients(batch.position.step) and torch.is_grad_enabled()
            with torch.set_grad_enabled(has_gradients):
                condition = encode_text(self.model, batch.tokens, self.clip_skip)
        return replace(
            condition, sizes=batch.sizes, hint=batch.hints, control=self.control, beside=self.beside(batch)
        )

    def beside(self, batch: Batch) -> Tensor | None:
        """What an inpainting model is given beside the noisy latents: (batch, 1 + channels, h, w); None for
        other models. Masks are drawn anew for each batch, so it is encoded now.
        """
        if not self.model.is_inpainting:
            return None
        assert batch.pixels is not None and batch.holes is not None
        with torch.no_grad(), torch.autocast(batch.pixels.device.type, enabled=False):
            return masked_input(self.model, batch.pixels, batch.holes)

    def with_noise(self, batch: Batch, x0: Tensor) -> Batch:
        """The batch with its noise complete: a noise offset may depend on the latents x0."""
        if batch.offset is None:
            return batch
        normal, strength = batch.offset
        strength = adaptive_strength(strength, self.options.adaptive_noise_scale or 0.0, x0)
        return replace(batch, noise=complete_noise(batch.noise, (normal, strength), self.options))

    def target(self, batch: Batch, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """What the model should give for the noisy latents x, in their shape."""
        return self.objective.target(x0, batch.noise, t)

    def further_losses(self, batch: Batch, x: Tensor, t: Tensor) -> Tensor | float:
        """What is added to each sample's loss (batch,) for the noisy latents x; 0.0 for nothing."""
        return 0.0

    def errors(self, prediction: Tensor, target: Tensor, t: Tensor) -> Tensor:
        """The loss of every element, float32, in the prediction's shape."""
        options = self.options
        if not options.is_huber:
            return ERRORS[options.loss_type](prediction, target)
        c = huber_width(options.huber_schedule, options.huber_c, t, self.objective.snr(t))  # (batch,)
        c = options.huber_scale * c.view(-1, 1, 1, 1)
        return HUBER_ERRORS[options.loss_type](prediction, target, c)

    def weighting(self, t: Tensor) -> Tensor | float:
        """How much the loss of samples at these timesteps counts: (batch,), or 1.0 for all."""
        if not self.options.weightings:
            return 1.0
        return weighting(self.options, self.objective.snr(t), self.objective.prediction)

    def train(self, mode: bool = True) -> Task:
        """The VAE stays in eval mode: it is never trained, so its dropout and statistics stay off."""
        super().train(mode)
        self.model.vae.eval()
        return self
