"""Prompts alone as a run's source of batches: the concepts of sliders."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from library.data.batch import Needs
from library.data.concept_builder import ConceptBuilder, order_of
from library.data.concepts import Concept, read_concepts
from library.latent_space import LatentSpace
from library.models.base import Model
from library.models.prompt_weights import encode_text, training_tokenizer
from library.options.parser import Reading
from library.options.sliders import SliderOptions
from library.options.training import TrainingOptions
from library.problems import UserError
from library.training.batches import BatchSource
from library.training.diffusion.noise import NoiseDraw
from library.training.output import Moment
from library.training.run import TrainingRun
from library.training.session import Session
from library.wording import counted

if TYPE_CHECKING:
    from torch import Tensor

PREVIEWED = 16  # concepts that are told in metadata


class Concepts(BatchSource):
    """The concepts of a file. In an epoch each comes up as often as a step has batches."""

    def __init__(self, options: SliderOptions, concepts: list[Concept], *, rounds: int) -> None:
        """rounds: how often each concept comes up in an epoch."""
        self.options, self.concepts, self.rounds = options, concepts, rounds
        self.text: dict[str, dict[str, Tensor]] | None = None

    def batches_per_epoch(self, processes: int) -> int:
        return len(self.concepts) * self.rounds

    def fingerprint(self, seed: int, processes: int) -> str:
        samples = [concept.batch_size * processes for concept in self.concepts]
        text = "\n".join([*map(repr, self.concepts), repr(samples), str(self.options.max_denoising_steps)])
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def builder(
        self,
        model: Model,
        run: TrainingRun,
        session: Session,
        *,
        total_steps: int,
        needs: Needs,
        fixed_seed: int | None = None,
    ) -> ConceptBuilder:
        return ConceptBuilder(
            self.concepts,
            self._tokenizer(model, run),
            NoiseDraw(session.seed, run.objective, encodes=False),
            session.seed,
            latent_space=model.latent_space,
            steps=self.options.max_denoising_steps,
            text=self.text,
            rank=session.accelerator.process_index,
            processes=session.accelerator.num_processes,
        )

    @torch.no_grad()
    def fill_caches(self, model: Model, run: TrainingRun, session: Session) -> None:
        """Encode each prompt once: the text encoders are not trained."""
        tokenize = self._tokenizer(model, run)
        device = next(model.text_encoders.parameters()).device
        prompts = dict.fromkeys(prompt for concept in self.concepts for prompt in concept.texts)
        found = {}
        for prompt in prompts:
            tokens = tuple(ids.to(device) for ids in tokenize([prompt]))
            with session.accelerator.autocast():
                outputs = model.text_outputs(encode_text(model, tokens, run.model.clip_skip))
            found[prompt] = {name: tensor.cpu() for name, tensor in outputs.items()}
        self.text = found
        # DDP wants a whole module on one device, and previews need the whole model there.
        if session.accelerator.num_processes == 1 and run.preview.sample_prompts is None:
            model.vae.to("cpu")
            model.text_encoders.to("cpu")

    def largest_batch(self, seed: int, processes: int) -> int:
        """The turn of the concept with the most pixels, as a dry run's first epoch has it."""
        largest = max(self.concepts, key=lambda one: one.resolution[0] * one.resolution[1] * one.batch_size)
        return order_of(len(self.concepts), seed, 0, 0).index(self.concepts.index(largest))

    @property
    def resolution(self) -> tuple[int, int]:
        return max(concept.resolution for concept in self.concepts)

    def summary(self) -> list[str]:
        return [
            f"{counted(len(self.concepts), 'concept')} from {self.options.prompts_file.name}:",
            *(f"  {concept}" for concept in self.concepts[:PREVIEWED]),
            *self._rest(),
        ]

    def _rest(self) -> list[str]:
        more = len(self.concepts) - PREVIEWED
        return [f"  and {more} more"] if more > 0 else []

    def contents(self) -> list[str]:
        return [str(concept) for concept in self.concepts]

    def settings(self) -> dict[str, Any]:
        return {"prompts": [str(concept) for concept in self.concepts]}

    def metadata(self, run: TrainingRun, moment: Moment) -> dict[str, Any]:
        told = [asdict(concept) for concept in self.concepts[:PREVIEWED]]
        return {
            "ss_leco_prompt_count": len(self.concepts),
            "ss_leco_prompts_file": self.options.prompts_file.name,
            "ss_leco_preview": told,
        }

    def places(self) -> set[Path]:
        return {self.options.prompts_file}

    def report_figures(self) -> list[tuple[str, str]]:
        from library.pages.figures import number

        return [("concepts", number(len(self.concepts)))]

    def _tokenizer(self, model: Model, run: TrainingRun) -> Any:
        return training_tokenizer(model, run.model.max_token_length, weighted=run.data.weighted_captions)


def read_for_run(reading: Reading[Any], latent_space: LatentSpace) -> Concepts:
    """The concepts that a command line names. Raises UserError with everything that is wrong with them."""
    options, training = reading.sections.get("slider"), reading.sections.get("training")
    if not isinstance(options, SliderOptions):
        raise UserError(reading.problems)  # what is wrong with them
    rounds = training.gradient_accumulation_steps if isinstance(training, TrainingOptions) else 1
    concepts = read_concepts(options.prompts_file, pixel_multiple=latent_space.pixel_multiple)
    return Concepts(options, concepts, rounds=rounds)
