"""The last chapter of a generator command: draw all pictures and save them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.console import fail, progress_bar, say
from library.generation.highres import Stages, first_stage, load_upscaler, second_stage
from library.generation.picture_texts import ModelName, texts_of
from library.generation.pictures import PictureNames, save_picture
from library.generation.repainting import strength_of
from library.generation.request import PromptRequest
from library.generation.sheet.page import ContactSheet
from library.options.drawing_files import PictureFileOptions
from library.options.drawing_highres import HighresOptions
from library.options.generation import GenerationOptions
from library.problems import warn
from library.stopping import exit_code
from library.wording import counted

if TYPE_CHECKING:
    from PIL.Image import Image

    from library.models.base import Model


def names_of(options: PictureFileOptions) -> PictureNames:
    """Names for the pictures of a run that begins now."""
    return PictureNames(time.strftime("%Y%m%d%H%M%S"), options)


@dataclass
class Outcome:
    """What became of a run's pictures.

    folder: they are in.
    asked: how many were to be drawn.
    paths: of their files.
    broken: how many had values that are no numbers.
    code: the program's exit code if it was stopped, else 0.
    """

    folder: Path
    asked: int = 0
    paths: list[Path] = field(default_factory=list)
    broken: int = 0
    code: int = 0

    def end(self, sheet: ContactSheet | None = None) -> None:
        """Tell what was made, and write the page of it.

        Ends the program with exit code 130 or 143 if it was stopped, with 1 if pictures could not be made.
        """
        say(_told(self.paths, self.folder))
        if sheet is not None and sheet.is_wanted:
            say(f"they are all on {sheet.write(self.folder)}")
        if self.broken:
            count = f"{counted(self.broken, 'picture')} of {self.asked}"
            fail(f"{count} had values that are no numbers and were not saved; is the model whole?")
        if self.code or self.broken:
            sys.exit(self.code or 1)


def draw(
    model: Model,
    pictures: Sequence[PromptRequest],
    options: GenerationOptions,
    *,
    names: PictureNames | None = None,
    highres: HighresOptions | None = None,
    name: ModelName | None = None,
    sheet: ContactSheet | None = None,
    labels: Mapping[str, str] | None = None,
    outcome: Outcome | None = None,
    on_picture: Callable[[Image | None], object] = lambda picture: None,
    **settings: Any,
) -> Outcome:
    """Draw and save pictures; each batch is on disk before the next one begins. On Ctrl-C and SIGTERM those
    that are done are kept, and the outcome says so.

    pictures: as of `plan_pictures`.
    names: of the files; several calls that share them replace none of each other's.
    highres: how small pictures are enlarged, and whether they are saved.
    name: the model's, for the pictures' text.
    sheet: takes the pictures.
    labels: what the sheet says of them besides their settings.
    outcome: of earlier calls, which goes on.
    on_picture: is given each picture; None for one with values that are no numbers.
    settings: further arguments of `generate`.
    """
    _warn_of_unused_options(model, pictures)
    highres = highres or HighresOptions()
    names = names or names_of(PictureFileOptions())
    outcome = outcome or Outcome(options.outdir)
    outcome.asked += len(pictures)

    def save(request: PromptRequest, picture: Image, stage: str) -> None:
        path = options.outdir / names.name(request, stage)
        if request.image is not None:
            strength = strength_of(request, is_inpainting=model.is_inpainting)
            request = replace(request, strength=strength)
        save_picture(path, picture, request, is_told_sizes=model.is_told_sizes, model=name)
        outcome.paths.append(path)
        if sheet is not None:
            texts = texts_of(request, is_told_sizes=model.is_told_sizes, model=name or ModelName())
            sheet.add(path.relative_to(options.outdir), picture, {**texts, **(labels or {})})

    def save_small(request: PromptRequest, picture: Image) -> None:
        if highres.highres_fix_save_1st:
            save(request, picture, "0")

    try:
        stages = _stages(highres, save_small)
        for request, picture in _draw_batches(model, pictures, options, {**settings, "stages": stages}):
            on_picture(picture)
            if picture is None:
                outcome.broken += 1
            else:
                save(request, picture, "" if request.highres is None else "1")
    except KeyboardInterrupt as stop:
        outcome.code = exit_code(stop)
    return outcome


def _stages(options: HighresOptions, on_small: Callable[[PromptRequest, Image], object]) -> Stages:
    upscaler = None
    if options.highres_fix_upscaler is not None:
        upscaler = load_upscaler(options.highres_fix_upscaler, options.upscaler_arguments)
    return Stages(upscaler, options.highres_fix_latents_upscaling, on_small)


def _told(paths: Sequence[Path], folder: Path) -> str:
    """What was made, for the console."""
    if not paths:
        return "no pictures were made"
    first, last = (path.relative_to(folder).as_posix() for path in (paths[0], paths[-1]))
    return f"{counted(len(paths), 'picture')} in {folder}: {first}" + (f" to {last}" if paths[1:] else "")


def _draw_batches(
    model: Model,
    pictures: Sequence[PromptRequest],
    options: GenerationOptions,
    settings: dict[str, Any],
) -> Iterator[tuple[PromptRequest, Image | None]]:
    """Each request with its picture; None for one with values that are no numbers. A progress bar shows the
    steps.
    """
    from library.generation.generate import generate
    from library.generation.known_texts import KnownTexts

    weight, known = next(model.denoiser.parameters()), KnownTexts()
    with progress_bar(total=sum(_calls(r, model) for r in pictures), unit="step", desc="drawing") as bar:
        for start in range(0, len(pictures), options.batch_size):
            batch = pictures[start : start + options.batch_size]
            drawn = generate(
                model,
                batch,
                device=weight.device,
                dtype=weight.dtype,
                emb_normalize=options.emb_normalize_mode,
                known=known,
                on_step=bar.update,
                **settings,
            )
            yield from zip(batch, drawn, strict=True)


def _calls(request: PromptRequest, model: Model) -> int:
    """How often the model is asked for a picture."""
    from library.generation.samplers import count_calls

    own = strength_of(request, is_inpainting=model.is_inpainting)
    if request.highres is None:
        return count_calls(request.sampler, model.prediction_type, request.steps, own)
    large = second_stage(replace(request, second_strength=request.strength))
    small = first_stage(request)
    return sum(
        count_calls(one.sampler, model.prediction_type, one.steps, strength)
        for one, strength in (
            (small, strength_of(small, is_inpainting=model.is_inpainting)),
            (large, large.chosen_strength),
        )
    )


def _warn_of_unused_options(model: Model, pictures: Sequence[PromptRequest]) -> None:
    """Warns of prompt options that change nothing."""
    for prompt in {(one.prompt, one.negative): one for one in pictures}.values():
        text = repr(prompt.prompt[:40])
        if prompt.negative and not prompt.is_guided:
            warn(f"--n of {text} has no effect at scale 1")
        if prompt.negative_scale is not None and not prompt.is_guided:
            warn(f"--nl of {text} has no effect at scale 1")
        plain = PromptRequest("", width=prompt.width, height=prompt.height)
        told = (prompt.sizes, prompt.sizes_negative)
        if not model.is_told_sizes and told != (plain.sizes, plain.sizes_negative):
            warn(f"original size and crop of {text} have no effect: this model is not told sizes")
