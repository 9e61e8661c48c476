"""Previews: the prompts of --sample_prompts, drawn while training with the same code as the generator."""

from __future__ import annotations

import dataclasses
import random
import time
from pathlib import Path

from library.generation.generate import generate
from library.generation.pictures import save_picture
from library.generation.prompts import PromptRequest, read_prompts
from library.models import FAMILIES
from library.options.generation import PreviewOptions
from library.options.saving import SavingOptions
from library.training.interruption import Interruption
from library.training.session import Session
from library.training.task import Task


class Previews:
    """Draws at the moments the options name, into `<output_dir>/sample`. Prompts are shared out among the
    processes.
    """

    def __init__(
        self,
        options: PreviewOptions,
        saving: SavingOptions,
        task: Task,
        session: Session,
        clip_skip: int | None,
        interruption: Interruption,
    ) -> None:
        assert saving.output_dir is not None
        self.options, self.task, self.session = options, task, session
        self.clip_skip, self.interruption = clip_skip, interruption
        self.folder: Path = saving.output_dir / "sample"
        self.prefix = f"{saving.output_name}_" if saving.output_name else ""
        self.requests: list[PromptRequest] = []
        if options.sample_prompts is not None:
            side = FAMILIES[task.model.family].side
            defaults = PromptRequest("", width=side, height=side, sampler=options.sample_sampler)
            self.requests = read_prompts(options.sample_prompts, defaults=defaults)

    def at_start(self, step: int) -> None:
        """Before the first step, if asked for; not again when a run goes on."""
        if self.options.sample_at_first and step == 0:
            self._draw("000000")

    def after_step(self, step: int, epoch: int, epoch_ended: bool) -> None:
        """step: steps done; epoch: the (1-based) epoch they lie in. Epochs win over steps."""
        if self.is_due(step, epoch, epoch_ended):
            self._draw(f"e{epoch:06d}" if self.options.sample_every_n_epochs else f"{step:06d}")

    def is_due(self, step: int, epoch: int, epoch_ended: bool) -> bool:
        """Whether pictures are drawn after a step; as `after_step`."""
        options = self.options
        if options.sample_every_n_epochs:
            return epoch_ended and epoch % options.sample_every_n_epochs == 0
        return bool(options.sample_every_n_steps) and step % options.sample_every_n_steps == 0

    def _draw(self, moment: str) -> None:
        """Training goes on as if nothing had been drawn: no generator it uses is touched."""
        accelerator = self.session.accelerator
        own = list(enumerate(self.requests))[accelerator.process_index :: accelerator.num_processes]
        was_training = self.task.training
        self.task.eval()
        for number, request in own:
            self._draw_one(number, request, moment)
        self.task.train(was_training)

    def _draw_one(self, number: int, request: PromptRequest, moment: str) -> None:
        """Draw a prompt and save it; nothing when the run was asked to stop meanwhile."""
        seed = random.SystemRandom().randrange(2**31) if request.seed is None else request.seed
        drawn = dataclasses.replace(request, seed=seed)
        with self.session.accelerator.autocast():
            pictures = generate(
                self.task.model,
                [drawn],
                device=self.session.device,
                clip_skip=self.clip_skip,
                stop=lambda: self.interruption.requested,
            )
        date = time.strftime("%Y%m%d%H%M%S")
        suffix = "" if request.seed is None else f"_{request.seed}"
        for picture in pictures:
            save_picture(
                self.folder / f"{self.prefix}{moment}_{number:02d}_{date}{suffix}.png", picture, drawn
            )
