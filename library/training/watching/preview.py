"""Previews: the prompts of --sample_prompts, drawn while training with the same code as the generator."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from library.console import progress_bar
from library.files import unwritten_is_a_warning
from library.generation.generate import generate
from library.generation.hints import check_hints
from library.generation.pictures import save_picture
from library.generation.prompt_options import training_syntax
from library.generation.prompts import read_prompts
from library.generation.repainting import check_originals
from library.generation.request import PromptRequest
from library.generation.samplers import count_calls
from library.generation.strengths import NetworksInUse
from library.models import FAMILIES
from library.problems import UserError, warn, without_warnings
from library.training.interruption import Interruption
from library.training.run import TrainingRun
from library.training.session import Session
from library.training.tasks.task import Task
from library.training.watching.trackers import Drawn, Trackers

T = TypeVar("T")


class Previews:
    """Draws previews into `<output_dir>/sample` when they are due. Each process draws its share of the
    prompts, or all together draw all of them.
    """

    def __init__(
        self,
        run: TrainingRun,
        task: Task,
        session: Session,
        trackers: Trackers,
        interruption: Interruption,
        *,
        together: bool = False,
    ) -> None:
        """together: all processes draw every prompt together, as each has a share of the weights only; the
        first one keeps the pictures.
        """
        self.together = together
        options, saving = run.preview, run.saving
        self.options, self.task, self.session = options, task, session
        self.clip_skip, self.interruption = run.model.clip_skip, interruption
        self.trackers, self.is_tracked = trackers, bool(run.logging.trackers) or not run.logging.no_report
        self.folder = preview_folder(run)
        self.prefix = f"{saving.output_name}_" if saving.output_name else ""
        self.requests: list[PromptRequest] = []
        if options.sample_prompts is not None:
            self.read_at = _version(options.sample_prompts)
            with without_warnings():  # the checks before the start had them
                self.requests = self._read(options.sample_prompts)

    def _read(self, path: Path) -> list[PromptRequest]:
        side = FAMILIES[self.task.model.family].side
        defaults = PromptRequest("", width=side, height=side, sampler=self.options.sample_sampler)
        syntax = training_syntax(self.task.model.latent_space.pixel_multiple)
        requests = read_prompts(path, syntax, defaults=defaults)
        check_originals(requests)
        if not self.task.needs.hints:
            return [request.with_hints(()) for request in requests]
        check_hints(requests)
        return requests

    def _read_again(self) -> None:
        """Take what the prompt file says now, if it was edited. The old prompts stay if it cannot be used."""
        path = self.options.sample_prompts
        if path is None or (version := _version(path)) == self.read_at:
            return
        self.read_at = version
        try:
            self.requests = self._read(path)
        except UserError as error:
            more = ", and more" if error.problems[1:] else ""
            warn(f"the old prompts are drawn: {error.problems[0]}{more}")

    def at_start(self, step: int) -> None:
        """Draw before the first step, if asked for; not again when a run is resumed."""
        if self.options.sample_at_first and step == 0:
            self._draw("000000", step)

    def after_step(self, step: int, epoch: int, epoch_ended: bool) -> None:
        """Draw if it is due, once where both a step and an epoch are.

        step: steps done.
        epoch: the (1-based) epoch that the last of them belongs to.
        """
        if self.is_due(step, epoch, epoch_ended):
            by_epoch = self._epoch_is_due(epoch, epoch_ended)
            self._draw(f"e{epoch:06d}" if by_epoch else f"{step:06d}", step)

    def is_due(self, step: int, epoch: int, epoch_ended: bool) -> bool:
        """Whether pictures are drawn after a step; the arguments of `after_step`."""
        steps = self.options.sample_every_n_steps
        return self._epoch_is_due(epoch, epoch_ended) or (steps is not None and step % steps == 0)

    def _epoch_is_due(self, epoch: int, epoch_ended: bool) -> bool:
        epochs = self.options.sample_every_n_epochs
        return epochs is not None and epoch_ended and epoch % epochs == 0

    def _draw(self, moment: str, step: int) -> None:
        """Training continues exactly as without the previews: they touch none of its generators."""
        self._read_again()
        self.requests = self._agreed(self.requests)  # one of them may have read the file before an edit
        accelerator = self.session.accelerator
        own = list(enumerate(self.requests))
        if not self.together:
            own = own[accelerator.process_index :: accelerator.num_processes]
        was_training = self.task.training
        self.task.eval()
        drawn: list[Drawn] = []
        hidden = not self.session.is_main
        kind = self.task.model.prediction_type
        total = sum(count_calls(request.sampler, kind, request.steps) for _, request in own)
        with progress_bar(total=total, desc="previews", delay=1, leave=False, disable=hidden) as bar:
            for number, request in own:
                drawn += self._draw_one(number, request, moment, bar.update)
        self.task.train(was_training)
        if self.is_tracked:
            # The first process has the trackers.
            everyone = [drawn] if self.together else self.session.sharing().gather(drawn)
            self.trackers.show(step, [preview for share in everyone for preview in share])

    def _draw_one(
        self, number: int, request: PromptRequest, moment: str, on_step: Callable[[int], object]
    ) -> list[Drawn]:
        """Draw a prompt and save the picture, or all that it enumerates; nothing if the run was asked to stop
        meanwhile.
        """
        seed = self._agreed(random.SystemRandom().randrange(2**31)) if request.seed is None else request.seed
        try:
            chosen = [dataclasses.replace(one, seed=seed, choices=None) for one in request.chosen(seed)]
            check_hints(chosen)
        except UserError as error:  # they were there at the start
            warn(f"a preview is not drawn: {error.problems[0]}")
            return []
        with self.session.accelerator.autocast():
            pictures = generate(
                self.task.model,
                chosen,
                device=self.session.device,
                clip_skip=self.clip_skip,
                control=self.task.control,
                networks=NetworksInUse(self.task.networks),
                stop=self._is_stopped,
                on_step=on_step,
            )
        date = time.strftime("%Y%m%d%H%M%S")
        suffix = "" if request.seed is None else f"_{request.seed}"
        shown = []
        for place, (one, picture) in enumerate(zip(chosen, pictures, strict=False)):
            if picture is not None and (self.session.is_main or not self.together):
                which = f"-{place}" if len(chosen) > 1 else ""
                path = self.folder / f"{self.prefix}{moment}_{number:02d}{which}_{date}{suffix}.png"
                with unwritten_is_a_warning():
                    save_picture(path, picture, one)
                shown.append(Drawn(number, one.prompt, picture))
        return shown

    def _is_stopped(self) -> bool:
        requested = self.interruption.requested
        return self.session.any_wants(requested) if self.together else requested

    def _agreed(self, value: T) -> T:
        """The first process's value, where all draw together."""
        return self.session.sharing().gather(value)[0] if self.together else value


def preview_folder(run: TrainingRun) -> Path:
    """Where a run's previews are."""
    return run.saving.output_dir / "sample"


def _version(path: Path) -> tuple[int, int] | None:
    """What differs when a file was edited: its time and size; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
