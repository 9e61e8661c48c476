"""Task: the module that is trained. The base trains the model itself: its denoiser and, if asked, text
encoders.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from library.data.batch import Batch
from library.models.base import Condition, Model, Part
from library.models.prompt_weights import encode_text
from library.models.saving import Saving
from library.models.text import without_padding
from library.options.objective import ObjectiveOptions
from library.problems import UserError, warn
from library.training.diffusion.loss import ERRORS, HUBER_ERRORS, huber_width, mean_per_sample, weighting
from library.training.diffusion.noise import adaptive_strength, complete_noise
from library.training.diffusion.objective import make_objective
from library.training.tasks.components import Component


@dataclass(frozen=True)
class TextTraining:
    """How text encoders are trained.

    rates: of each, 0 leaves it as it is; the last one counts for all further ones. stop_at: the step from
    which on none is trained any more (None: never).
    """

    rates: tuple[float, ...]
    stop_at: int | None = None

    def rate_of(self, number: int) -> float:
        """Of a model's (0-based) n-th text encoder."""
        return self.rates[min(number, len(self.rates) - 1)]


def may_skip_parameters(text: TextTraining | None) -> bool:
    """Whether a step may leave trained parameters without a gradient, which DDP has to be told."""
    return text is not None and text.stop_at is not None


def text_encoder_name(number: int, count: int) -> str:
    """What people call the (0-based) n-th of a model's text encoders."""
    return f"text encoder {number + 1}" if count > 1 else "text encoder"


class Task(nn.Module):
    """Holds the model and everything trainable; `task(batch)` is the loss of a batch.

    sample_losses: each sample's loss in the latest batch, for messages.

    Subclasses change what is trained: they override `trained_parts`, `param_groups` and the two state
    methods.
    """

    saves_model = True  # whether the result is the model itself
    sample_losses: Tensor | None = None

    def __init__(
        self,
        model: Model,
        options: ObjectiveOptions,
        *,
        learning_rate: float,
        text: TextTraining | None = None,
        clip_skip: int | None = None,
        block_rates: tuple[float, ...] = (),
        hides_padding: bool = False,
    ) -> None:
        """block_rates: of each block of the denoiser, 0 leaves it as it is; empty: learning_rate for all.
        hides_padding: the denoiser does not see what captions are padded with.
        """
        super().__init__()
        self.model = model
        self.objective = make_objective(options, model.prediction_type)
        if model.zero_terminal_snr and not options.zero_terminal_snr:
            warn("the model knows a last timestep of pure noise; --zero_terminal_snr would keep that")
        # How it will predict, in previews and in its file.
        model.prediction_type = self.objective.prediction
        model.zero_terminal_snr = options.zero_terminal_snr
        self.options, self.clip_skip = options, clip_skip
        self.learning_rate, self.text, self.block_rates = learning_rate, text, block_rates
        self.hides_padding = hides_padding
        model.requires_grad_(False)
        self.choose_trained()

    def choose_trained(self) -> None:
        """Turn gradients on for what this task trains; everything is frozen before."""
        for rate, parameters in self._denoiser_parts():
            for parameter in parameters:
                parameter.requires_grad_(rate != 0)
        if self.text is None:
            return
        for number, text_encoder in enumerate(self.model.text_encoders):
            text_encoder.requires_grad_(self.text.rate_of(number) != 0)
        for module in self.model.idle_text_modules(self.clip_skip):
            module.requires_grad_(False)

    def trained_parameters(self) -> list[nn.Parameter]:
        """What the optimizer gets, over all groups."""
        return [parameter for group in self.param_groups() for parameter in group["params"]]

    def param_groups(self) -> list[dict[str, Any]]:
        """Optimizer groups with their learning rate and the name it has in logs."""
        is_split = bool(self.block_rates)
        groups = [
            {"params": parameters, "lr": rate, "name": f"unet_block{number}" if is_split else "unet"}
            for number, (rate, parameters) in enumerate(self._denoiser_parts())
        ]
        encoders = self.model.text_encoders if self.text is not None else ()
        for number, text_encoder in enumerate(encoders):
            parameters = [parameter for parameter in text_encoder.parameters() if parameter.requires_grad]
            name = f"textencoder{number + 1}" if len(encoders) > 1 else "textencoder"
            groups.append({"params": parameters, "lr": self.text.rate_of(number), "name": name})
        trained = [group for group in groups if group["lr"] and group["params"]]
        if not trained:
            raise UserError.of("--learning_rate", "every learning rate is 0: nothing would be trained")
        return trained

    def components(self) -> list[Component]:
        """What is trained, by the part of the model it belongs to."""
        encoders = self.model.text_encoders
        denoiser = [parameter for _, found in self._denoiser_parts() for parameter in found]
        parts = [Component("U-Net", denoiser)]
        parts += [
            Component(text_encoder_name(number, len(encoders)), list(encoder.parameters()), is_text=True)
            for number, encoder in enumerate(encoders)
        ]
        trained = [replace(one, parameters=[p for p in one.parameters if p.requires_grad]) for one in parts]
        return [one for one in trained if one.parameters]

    def _denoiser_parts(self) -> list[tuple[float, list[nn.Parameter]]]:
        """What of the denoiser is trained together, and how fast."""
        if not self.block_rates:
            return [(self.learning_rate, list(self.model.denoiser.parameters()))]
        blocks = self.model.denoiser_blocks()
        if len(blocks) != len(self.block_rates):
            cause = f"has {len(self.block_rates)} values, this model has {len(blocks)} blocks"
            raise UserError.of("--block_lr", cause)
        return list(zip(self.block_rates, blocks, strict=True))

    def forward(self, batch: Batch) -> Tensor:
        """The loss of a batch: a weighted mean over its samples, as a float32 scalar."""
        t = self.objective.sample_t(batch.u, *self.options.timestep_range)
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
        loss = mean_per_sample(self.errors(prediction, self.target(batch, x0, x, t), t), batch.masks)
        return loss * self.weighting(t)

    def with_noise(self, batch: Batch, x0: Tensor) -> Batch:
        """The batch with its noise complete: a noise offset may depend on the latents x0."""
        if batch.offset is None:
            return batch
        normal, strength = batch.offset
        strength = adaptive_strength(strength, self.options.adaptive_noise_scale or 0.0, x0)
        return replace(batch, noise=complete_noise(batch.noise, (normal, strength), self.options))

    def errors(self, prediction: Tensor, target: Tensor, t: Tensor) -> Tensor:
        """The loss of every element, float32, in the prediction's shape."""
        options = self.options
        if not options.is_huber:
            return ERRORS[options.loss_type](prediction, target)
        c = huber_width(options.huber_schedule, options.huber_c, t, self.objective.snr(t))
        c = options.huber_scale * c.view(-1, 1, 1, 1)
        return HUBER_ERRORS[options.loss_type](prediction, target, c)

    def target(self, batch: Batch, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """What the model should give for the noisy latents x, in their shape."""
        return self.objective.target(x0, batch.noise, t)

    def after_step(self) -> dict[str, Tensor]:
        """What is done to what is trained after each optimizer step. Returns figures for logs, scalars on the
        device.
        """
        return {}

    def latents(self, batch: Batch) -> Tensor:
        """The batch's latents (batch, 4, height / 8, width / 8), encoded now unless they were cached."""
        if batch.latents is not None:
            return batch.latents
        with torch.no_grad(), torch.autocast(batch.pixels.device.type, enabled=False):
            return self.model.encode_images(batch.pixels, batch.posterior).float()

    def condition(self, batch: Batch) -> Condition:
        if batch.text is not None:
            return replace(self.model.condition_from(batch.text), sizes=batch.sizes)
        with torch.set_grad_enabled(self.trains_text(batch.position.step) and torch.is_grad_enabled()):
            condition = encode_text(self.model, batch.tokens, self.clip_skip)
        condition = replace(condition, sizes=batch.sizes)
        return replace(condition, mask=without_padding(batch.tokens[0])) if self.hides_padding else condition

    def trains_text(self, step: int) -> bool:
        """Whether text encoders are trained at this (0-based) step."""
        return self.text is not None and (self.text.stop_at is None or step < self.text.stop_at)

    def weighting(self, t: Tensor) -> Tensor | float:
        """How much the loss of samples at these timesteps (batch,) counts."""
        if not self.options.weightings:
            return 1.0
        return weighting(self.options, self.objective.snr(t), self.objective.prediction)

    def train(self, mode: bool = True) -> Task:
        """The VAE never trains, so its dropout and statistics stay off."""
        super().train(mode)
        self.model.vae.eval()
        return self

    def trained_parts(self) -> list[Part]:
        """The parts of the model of which something is trained."""
        parts = self.model.parts.items()
        return [name for name, module in parts if any(p.requires_grad for p in module.parameters())]

    def trained_tensors(self) -> dict[str, Tensor]:
        """What is trained, by the names of a checkpoint file: what a state must hold to go on exactly."""
        tensors = (self.model.part_weights(part) for part in self.trained_parts())
        return {key: value for part in tensors for key, value in part.items()}

    def load_trained_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `trained_tensors` gave, bit for bit."""
        for part in self.trained_parts():
            self.model.load_part_weights(part, tensors)

    def save(self, path: Path, saving: Saving) -> None:
        """Write the result under its final name, whole."""
        self.model.save(path, saving)
