"""ControlNetTask: trains a ControlNet beside a frozen model (Zhang et al. 2023, arXiv:2302.05543)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from library.data.batch import Needs
from library.models.attention import Attention, checkpoint_denoiser, use_attention
from library.models.base import Model
from library.models.condition import Control
from library.models.ldm.controlnet import load_control, start_control
from library.models.ldm.model import LatentDiffusion
from library.models.saving import Saving
from library.options.control import ControlNetOptions
from library.options.objective import ObjectiveOptions
from library.param_groups import ParamGroup
from library.problems import UserError
from library.training.tasks.components import Component
from library.training.tasks.task import Task

_NEW = "controlnet_"  # how the names begin of what a U-Net does not have


class ControlNetTask(Task):
    """Trains a ControlNet; the result is its file."""

    needs = Needs(hints=True)

    def __init__(
        self,
        model: Model,
        options: ObjectiveOptions,
        control: ControlNetOptions,
        *,
        learning_rate: float,
        new_rate: float | None = None,
        clip_skip: int | None,
        seed: int,
    ) -> None:
        """learning_rate: of what is copied from the U-Net, 0 leaves it as it is.
        new_rate: of the rest; None: the same.
        seed: of the first values of what embeds the hint.

        Raises UserError when the file to go on from is no ControlNet for this model.
        """
        super().__init__(model, options, clip_skip=clip_skip)
        assert isinstance(model, LatentDiffusion), "only U-Nets have ControlNets"
        path = control.controlnet_model_name_or_path
        if path is None:
            self.control_net = start_control(model, seed=seed, hint_range=control.hint_range or "0..1")
        else:
            self.control_net = load_control(path, model, hint_range=control.hint_range)
        self.rates = learning_rate, learning_rate if new_rate is None else new_rate
        for group in self._groups():
            for parameter in group["params"]:
                parameter.requires_grad_(group["lr"] != 0)

    @property
    def control(self) -> Control:
        return self.control_net

    def param_groups(self) -> list[ParamGroup]:
        trained = [group for group in self._groups() if group["lr"]]
        if not trained:
            raise UserError.of("--learning_rate", "every learning rate is 0: nothing would be trained")
        return trained

    def _groups(self) -> list[ParamGroup]:
        """What learns at one rate, at the rate of 0 too."""
        named = list(self.control_net.net.named_parameters())
        copied, new = self.rates
        if copied == new:
            return [ParamGroup(params=[p for _, p in named], lr=copied, name="controlnet")]
        parts = ((copied, "controlnet", False), (new, "controlnet_new", True))
        return [
            ParamGroup(params=[p for key, p in named if key.startswith(_NEW) == is_new], lr=rate, name=name)
            for rate, name, is_new in parts
        ]

    def components(self) -> list[Component]:
        trained = [parameter for group in self.param_groups() for parameter in group["params"]]
        return [Component("ControlNet", trained)]

    def use_attention(self, kind: Attention) -> None:
        super().use_attention(kind)
        use_attention(self.control_net.net, kind)

    def use_gradient_checkpointing(self, on: bool) -> None:
        super().use_gradient_checkpointing(on)
        checkpoint_denoiser(self.control_net.net, on)

    def blocks(self) -> list[nn.Module]:
        return [*super().blocks(), *self.control_net.blocks()]

    def trained_tensors(self) -> dict[str, Tensor]:
        """By the names of its file."""
        return self.control_net.tensors()

    @torch.no_grad()
    def load_trained_tensors(self, tensors: dict[str, Tensor]) -> None:
        own = self.control_net.tensors()
        if own.keys() != tensors.keys() or any(own[key].shape != tensors[key].shape for key in own):
            raise UserError.of("the saved state", "is of another ControlNet")
        for key, value in tensors.items():
            own[key].copy_(value)

    def save(self, path: Path, saving: Saving) -> None:
        self.control_net.save(path, saving)
