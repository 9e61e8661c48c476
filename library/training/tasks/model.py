"""ModelTask: trains the model itself, its denoiser and, if asked, its text encoders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from library.data.batch import Batch
from library.models.base import Condition, Model
from library.models.saving import Saving
from library.models.text import without_padding
from library.options.objective import ObjectiveOptions
from library.param_groups import ParamGroup
from library.problems import UserError
from library.training.tasks.components import Component, text_encoder_name
from library.training.tasks.task import Task


@dataclass(frozen=True)
class TextTraining:
    """How text encoders are trained.

    rates: the learning rate of each, 0 leaves it as it is; the last one counts for all further ones.
    stop_at: the step from which on none is trained any more; None: never.
    """

    rates: tuple[float, ...]
    stop_at: int | None = None

    def rate_of(self, number: int) -> float:
        """The learning rate of a model's (0-based) n-th text encoder."""
        return self.rates[min(number, len(self.rates) - 1)]


def may_skip_parameters(text: TextTraining | None) -> bool:
    """Whether a step may leave trained parameters without a gradient, which DDP has to be told."""
    return text is not None and text.stop_at is not None


class ModelTask(Task):
    """Trains a model's own weights; the result is a checkpoint."""

    saves_model = True

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
        """learning_rate: of the denoiser, 0 leaves it as it is.
        text: None freezes the text encoders.
        block_rates: the rate of each block of the denoiser, 0 leaves it as it is; empty: learning_rate.
        hides_padding: the denoiser does not see what captions are padded with.
        """
        super().__init__(model, options, clip_skip=clip_skip)
        self.text, self.hides_padding = text, hides_padding
        self.rate, self.block_rates = learning_rate, block_rates
        for group in self._denoiser_groups():
            _set_gradients(group["params"], on=group["lr"] != 0)
        if text is not None:
            for number, text_encoder in enumerate(model.text_encoders):
                text_encoder.requires_grad_(text.rate_of(number) != 0)
            for module in model.idle_text_modules(clip_skip):
                module.requires_grad_(False)

    def param_groups(self) -> list[ParamGroup]:
        groups = [*self._denoiser_groups(), *self._text_groups()]
        trained = [group for group in groups if group["lr"] and group["params"]]
        if not trained:
            raise UserError.of("--learning_rate", "every learning rate is 0: nothing would be trained")
        return trained

    def _denoiser_groups(self) -> list[ParamGroup]:
        return _denoiser_groups(self.model, self.rate, self.block_rates)

    def _text_groups(self) -> list[ParamGroup]:
        if self.text is None:
            return []
        encoders = self.model.text_encoders
        return [
            ParamGroup(
                params=[parameter for parameter in text_encoder.parameters() if parameter.requires_grad],
                lr=self.text.rate_of(number),
                name=f"textencoder{number + 1}" if len(encoders) > 1 else "textencoder",
            )
            for number, text_encoder in enumerate(encoders)
        ]

    def components(self) -> list[Component]:
        encoders = self.model.text_encoders
        # In the groups' order: the ledger's sample of a part depends on it, and old states hold one.
        denoiser = [parameter for group in self._denoiser_groups() for parameter in group["params"]]
        parts = [Component("U-Net", denoiser)]
        parts += [
            Component(text_encoder_name(number, len(encoders)), list(encoder.parameters()), is_text=True)
            for number, encoder in enumerate(encoders)
        ]
        trained = [replace(one, parameters=[p for p in one.parameters if p.requires_grad]) for one in parts]
        return [one for one in trained if one.parameters]

    def needs_text_gradients(self, step: int) -> bool:
        return self.text is not None and (self.text.stop_at is None or step < self.text.stop_at)

    def condition(self, batch: Batch) -> Condition:
        condition = super().condition(batch)
        return replace(condition, mask=without_padding(batch.tokens[0])) if self.hides_padding else condition

    def trained_tensors(self) -> dict[str, Tensor]:
        """By the names of a checkpoint file."""
        tensors = (self.model.part_weights(part) for part in self.trained_parts())
        return {key: value for part in tensors for key, value in part.items()}

    def load_trained_tensors(self, tensors: dict[str, Tensor]) -> None:
        for part in self.trained_parts():
            self.model.load_part_weights(part, tensors)

    def save(self, path: Path, saving: Saving) -> None:
        self.model.save(path, saving)


def _denoiser_groups(model: Model, rate: float, block_rates: tuple[float, ...]) -> list[ParamGroup]:
    """The denoiser's parameters that learn at one rate, those of rate 0 among them."""
    if not block_rates:
        return [ParamGroup(params=list(model.denoiser.parameters()), lr=rate, name="unet")]
    blocks = model.denoiser_blocks()
    if len(blocks) != len(block_rates):
        cause = f"has {len(block_rates)} values, this model has {len(blocks)} blocks"
        raise UserError.of("--block_lr", cause)
    return [
        ParamGroup(params=parameters, lr=rate, name=f"unet_block{number}")
        for number, (rate, parameters) in enumerate(zip(block_rates, blocks, strict=True))
    ]


def _set_gradients(parameters: Iterable[nn.Parameter], *, on: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(on)
