"""NetworkTask: trains a network beside a frozen model. The network's kind comes from --network_module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from library.data.batch import Batch
from library.data.preservation import Preservation
from library.generation.strengths import Networks
from library.models.attention import shared_inputs
from library.models.base import Condition, Model
from library.models.embeddings import bundled
from library.models.saving import Saving
from library.network.loading import load_network_module, open_network
from library.network.module import HALVES
from library.network.network import Network
from library.options.network import NetworkOptions
from library.options.objective import ObjectiveOptions
from library.options.preservation import PreservationOptions
from library.options.words import PivotalOptions
from library.param_groups import ParamGroup
from library.problems import UserError, warn
from library.training.diffusion.loss import mean_per_sample, squared_error
from library.training.tasks.components import Component, text_encoder_name
from library.training.tasks.learned_words import LearnedWords
from library.training.tasks.task import Task

PRESERVATION = "diff_output_preservation"


class NetworkTask(Task):
    """Trains a network, and words with it if asked (pivotal tuning); the result is its file."""

    def __init__(
        self,
        model: Model,
        options: ObjectiveOptions,
        network: NetworkOptions,
        *,
        learning_rate: float,
        clip_skip: int | None,
        seed: int,
        words: PivotalOptions | None = None,
        preservation: PreservationOptions | None = None,
    ) -> None:
        """learning_rate: where the network's options give none for a part of the model.
        seed: of the network's and the words' first values.
        words: those that are trained too; None, or of none, trains none.
        preservation: what it leaves as it is; None, or of none, leaves nothing.
        """
        super().__init__(model, options, clip_skip=clip_skip)
        self.network_options = network
        self.rates = network.rates(learning_rate)
        if "te2" in self.rates and len(model.text_encoders) == 1:
            warn("--text_encoder_lr: the model has one text encoder; the first value counts")
            del self.rates["te2"]
        module = load_network_module(network.network_module)
        for path, multiplier in network.merged_first:
            _merge(model, path, multiplier, network.network_module)
        self.network = module.create(
            model,
            dim=network.network_dim,
            alpha=network.network_alpha,
            dropout=network.network_dropout,
            arguments=network.arguments,
            parts=self.rates.keys() - {"te2"},
            seed=seed,
            like=network.network_weights if network.dim_from_weights else None,
        )
        self.preservation = preservation or PreservationOptions()
        kept = Preservation.of(self.preservation)
        self.needs = replace(self.needs, hints=self.network.needs_hint, preservation=kept)
        self._preserved: list[Tensor] = []  # the loss of that, of each batch since the latest step
        self._has_text = any(place is not None for place in self.network.trained_parameters())
        if network.text_encoder_lr and "te" in self.rates and not self._has_text:
            warn(f"--text_encoder_lr has no effect: {network.network_module} has nothing in text encoders")
        if network.scale_weight_norms:
            self.network.check_norms()
        if network.network_weights is not None:
            self._start_from(network.network_weights)
        self.pivotal = words or PivotalOptions()
        self.words = LearnedWords(model, self.pivotal, seed=seed)
        rate = self.pivotal.embedding_lr
        self.embedding_rate = learning_rate if rate is None else rate
        self._has_joined = False
        self._tell_of_embeddings()
        self.network.attach()
        self.network.freeze_idle(model, clip_skip)
        for group in self.network.param_groups(self.rates):
            for parameter in group["params"]:
                parameter.requires_grad_(group["lr"] != 0)

    def _tell_of_embeddings(self) -> None:
        """Warns where words have files of their own though none were asked for."""
        if self.saves_embeddings and not self.pivotal.save_embeddings:
            what = f"files of {self.network_options.network_module} hold no words"
            warn(
                f"--token_string: {what}: theirs are in a folder beside the result, as with --save_embeddings"
            )

    def _start_from(self, path: Path) -> None:
        """Take a file's values, its alphas among them: training resumes what the file was."""
        before = self.network.alphas()
        self.network.load_file(path, self.model)
        found = self.network.alphas()
        if found != before and not self.network_options.dim_from_weights:
            warn(f"{path.name} was made with other alphas, which it keeps; --network_alpha does not count")
        if found != before or self.network_options.dim_from_weights:
            self.network.alpha = found.pop() if len(found) == 1 else None

    @property
    def networks(self) -> Networks:
        return ((self.network, 1.0),)

    def param_groups(self) -> list[ParamGroup]:
        trained = self.network.param_groups(self.rates)
        if self.words.words and self.embedding_rate:
            rows = self.words.rows()
            trained = [*trained, ParamGroup(params=rows, lr=self.embedding_rate, name="embedding")]
        if not trained:
            raise UserError.of("--learning_rate", "every learning rate is 0: nothing would be trained")
        return trained

    def components(self) -> list[Component]:
        encoders = len(self.model.text_encoders)
        trained = self.network.trained_parameters()
        found = [Component("network of the U-Net", trained.get(None, []))]
        for number in range(encoders):
            name = f"network of the {text_encoder_name(number, encoders)}"
            found.append(Component(name, trained.get(number, []), is_text=True))
        return [one for one in found if one.parameters] + self.words.components()

    def needs_text_gradients(self, step: int) -> bool:
        learns_text = self._has_text and bool(self.rates.get("te") or self.rates.get("te2"))
        return learns_text or self._learns_words(step)

    def _learns_words(self, step: int) -> bool:
        stop = self.pivotal.stop_embedding_training
        return bool(self.words.words and self.embedding_rate) and (stop is None or step < stop)

    def condition(self, batch: Batch) -> Condition:
        self.model.vocabulary.learns = self._learns_words(batch.position.step)
        return super().condition(batch)

    @contextmanager
    def computing_in(self, dtype: torch.dtype) -> Iterator[None]:
        if (half := self._half()) is None:
            yield
            return
        if not self._has_joined:  # by now it is settled how attention is computed
            self.network.join(shared_inputs(self.model.denoiser))
            self._has_joined = True
        self.network.cast_for_step(half)
        try:
            yield
        finally:
            self.network.forget_casts()

    def losses(self, batch: Batch, t: Tensor) -> Tensor:
        # It stays until the next batch: checkpointed layers run again in the backward pass.
        self.network.set_multiplier(batch.network_multiplier)
        self.network.begin_step(batch.position.epoch)
        with self.own_precision(batch.noise.device):
            return super().losses(batch, t)

    def own_precision(self, device: torch.device) -> AbstractContextManager[object]:
        """Context manager; inside it there is no autocast where all weights have the type that it would cast
        them to.
        """
        return nullcontext() if self._half() is None else torch.autocast(device.type, enabled=False)

    def _half(self) -> torch.dtype | None:
        """The type of 16 bits that the whole model computes in; None where there is none."""
        if self.network.computes_alone:
            return None
        parts = (self.model.denoiser, *self.model.text_encoders)
        types = {next(part.parameters()).dtype for part in parts}
        return types.pop() if len(types) == 1 and types <= set(HALVES) else None

    def target(self, batch: Batch, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Where a sample's custom_attributes say `diff_output_preservation`, what the model gives without the
        network.
        """
        target = super().target(batch, x0, x, t)
        preserved = [bool(attributes.get(PRESERVATION)) for attributes in batch.attributes]
        if not any(preserved):
            return target
        is_preserved = torch.tensor(preserved, device=x.device).view(-1, 1, 1, 1)
        return torch.where(is_preserved, self._without_network(batch, x, t).to(target.dtype), target)

    def further_losses(self, batch: Batch, x: Tensor, t: Tensor) -> Tensor | float:
        """How far the network is from what it must leave as it is, at the same noisy pictures."""
        if batch.kept is None:
            return 0.0
        asked = replace(batch, tokens=batch.kept_tokens, text=batch.kept_text)
        before = self._without_network(asked, x, t)
        now = self.model.predict(x, t, self.condition(asked))
        weights = batch.kept * self.preservation.preserve_weight
        losses = mean_per_sample(squared_error(now, before)) * weights * self.weighting(t)
        self._preserved.append(losses.detach().sum() / batch.kept.sum())
        return losses

    @torch.no_grad()
    def _without_network(self, batch: Batch, x: Tensor, t: Tensor) -> Tensor:
        self.network.set_multiplier(0)
        prediction = self.model.predict(x, t, self.condition(batch))
        self.network.set_multiplier(batch.network_multiplier)
        return prediction

    def train(self, mode: bool = True) -> NetworkTask:
        """Outside training, in previews, the network counts fully."""
        super().train(mode)
        if not mode:
            self.network.set_multiplier(1)
        return self

    def after_step(self) -> dict[str, Tensor]:
        """Max-norm regularization, with --scale_weight_norms; the loss of what is preserved."""
        self.words.after_step()
        limit = self.network_options.scale_weight_norms
        figures: dict[str, Tensor] = {}
        if limit:
            with self.model.masters():  # some kinds change the layer's own weight
                figures = self.network.limit_norms(limit)
        if self._preserved:
            figures = figures | {"loss/preservation": torch.stack(self._preserved).mean()}
            self._preserved = []
        return figures

    def trained_tensors(self) -> dict[str, Tensor]:
        return self.network.tensors() | self.words.tensors()

    def load_trained_tensors(self, tensors: dict[str, Tensor]) -> None:
        own = self.words.tensors().keys()
        self.words.load_tensors({key: value for key, value in tensors.items() if key in own})
        rest = {key: value for key, value in tensors.items() if key not in own}
        self.network.load_tensors(rest, "the saved state")

    def file_tensors(self) -> dict[str, Tensor] | None:
        saves_tensors = type(self.network).save is Network.save  # a kind may write more than its tensors
        if not saves_tensors:
            return None
        return self.network.file_tensors() | self._bundle()

    def _bundle(self) -> dict[str, Tensor]:
        """The words, as they stand in the network's file."""
        is_sd2 = self.model.family == "sd2"
        files = {self.pivotal.file_names[word]: self.words.rows_of(word) for word in self.words.words}
        return bundled(files, single="string_to_param.*" if is_sd2 else "clip_l")

    @property
    def saves_embeddings(self) -> bool:
        """Whether words have files of their own: if asked, and where the network's file cannot hold them."""
        return bool(self.words.words) and (self.pivotal.save_embeddings or self.file_tensors() is None)

    def embedding_files(self) -> dict[str, dict[str, Tensor]]:
        """The tensors of each word's own file, by its name. Not copies."""
        return {self.pivotal.file_names[word]: self.words.file_of(word) for word in self.words.words}

    def save(self, path: Path, saving: Saving) -> None:
        self.network.save(path, saving)


def _merge(model: Model, path: Path, multiplier: float, module: str) -> None:
    """Make a network file part of the model's own weights."""
    network = open_network(model, path, module)
    network.set_multiplier(multiplier)
    network.merge()
