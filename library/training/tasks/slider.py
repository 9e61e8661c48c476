"""SliderTask: teaches a network a direction between prompts, without pictures (Gandikota et al. 2023,
arXiv:2303.07345 and 2311.12092; LECO).

    goal = neutral - s * (positive - unconditional) to erase, + to enhance

are predictions of the model without the network; with it, the prediction for the target is to be the goal.
They are made for a sample on its way from noise to a picture of the target, drawn with the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from library.data.batch import Batch
from library.data.concept_builder import ConceptBatch
from library.data.concepts import Action
from library.models.base import Condition, Model
from library.options.network import NetworkOptions
from library.options.objective import ObjectiveOptions
from library.options.sliders import SliderOptions
from library.problems import UserError
from library.training.diffusion.loss import mean_per_sample
from library.training.tasks.network import NetworkTask

TARGET, POSITIVE, NEUTRAL, UNCONDITIONAL = range(4)  # the rows of `Concept.texts`


class SliderTask(NetworkTask):
    """Trains a network on concepts. Only the last prediction has gradients."""

    def __init__(
        self,
        model: Model,
        options: ObjectiveOptions,
        network: NetworkOptions,
        slider: SliderOptions,
        *,
        learning_rate: float,
        clip_skip: int | None,
        seed: int,
    ) -> None:
        if model.is_inpainting:
            cause = "is an inpainting model, which sliders show no picture to paint in"
            raise UserError.of("--pretrained_model_name_or_path", cause, "give the model it was made of")
        super().__init__(model, options, network, learning_rate=learning_rate, clip_skip=clip_skip, seed=seed)
        self.slider = slider
        self.times = self.objective.schedule(slider.max_denoising_steps)

    def losses(self, batch: Batch, t: Tensor) -> Tensor:
        assert isinstance(batch, ConceptBatch)
        concept, device = batch.concept, batch.noise.device
        self.network.begin_step(batch.position.epoch)
        texts = replace(self.condition(batch), sizes=None, hint=None)  # a row for each prompt
        with self.own_precision(device):
            with torch.no_grad(), self._without_dropout():
                x = self._partly_denoised(batch, texts)
                t = self._times(batch.denoised, batch)
                self.network.set_multiplier(0)
                rows = (POSITIVE, NEUTRAL, UNCONDITIONAL)
                positive, neutral, unconditional = self._predictions(x, t, texts, batch, rows)
                goal = goal_of(positive, neutral, unconditional, concept.action, concept.guidance_scale)
            # It stays until the next batch: checkpointed layers run again in the backward pass.
            self.network.set_multiplier(concept.multiplier)
            (prediction,) = self._predictions(x, t, texts, batch, (TARGET,))
        return mean_per_sample(self.errors(prediction, goal, t), None) * self.weighting(t)

    def _partly_denoised(self, batch: ConceptBatch, texts: Condition) -> Tensor:
        """Samples (batch, channels, h, w) after so many steps of DDIM, with guidance and the network."""
        self.network.set_multiplier(batch.concept.multiplier)
        scale, x = self.slider.leco_denoise_guidance_scale, batch.noise
        for step in range(batch.denoised):
            t = self._times(step, batch)
            rows = (UNCONDITIONAL, TARGET) if scale != 1 else (TARGET,)
            away, *towards = self._predictions(x, t, texts, batch, rows)
            prediction = away + scale * (towards[0] - away) if towards else away
            x0, noise = self.objective.split(x, prediction, t)
            x = self.objective.noisy(x0, noise, self._times(step + 1, batch))
        return x

    def _times(self, step: int, batch: ConceptBatch) -> Tensor:
        """The timestep before a step, for each sample (batch,)."""
        return self.objective.times(self.times[step], len(batch.noise), batch.noise.device)

    def _predictions(
        self, x: Tensor, t: Tensor, texts: Condition, batch: ConceptBatch, rows: Sequence[int]
    ) -> Sequence[Tensor]:
        """What is predicted for each of these prompts, in x's shape and float32, in one batch."""
        places, count = [row for row in rows for _ in range(len(x))], len(rows)
        condition = replace(texts.rows(places), sizes=batch.sizes.repeat(count, 1))
        answers = self.model.predict(x.repeat(count, 1, 1, 1), t.repeat(count), condition)
        return answers.float().chunk(count)

    @contextmanager
    def _without_dropout(self) -> Iterator[None]:
        was_training = self.network.training
        self.network.eval()
        try:
            yield
        finally:
            self.network.train(was_training)


def goal_of(positive: Tensor, neutral: Tensor, unconditional: Tensor, action: Action, scale: float) -> Tensor:
    """What the network is to predict for the target, in the shape of the predictions."""
    direction = scale * (positive - unconditional)
    return neutral - direction if action == "erase" else neutral + direction
