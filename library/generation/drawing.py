"""The pictures of a generator's run: drawn in batches, each on disk before the next one begins."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from library.console import fail, progress_bar, say
from library.generation.picture_texts import PARAMETERS, texts_of
from library.generation.pictures import PictureNames, save_picture
from library.generation.repainting import strength_of
from library.generation.request import PromptRequest
from library.generation.sheet.page import ContactSheet
from library.options.drawing_files import PictureFileOptions
from library.options.generation import GenerationOptions
from library.problems import warn
from library.stopping import exit_code
from library.wording import counted

if TYPE_CHECKING:
    from PIL.Image import Image

    from library.generation.strengths import Networks
    from library.models.base import Model
    from library.models.condition import Control


@dataclass(frozen=True)
class Artist:
    """What draws.

    model: with its networks, on the device and in eval mode.
    name: the model's, for the pictures' text.
    clip_skip: as of `generate`.
    control: ControlNets beside it.
    networks: those whose strengths prompts may choose.
    max_chunks: as of `generate`.
    """

    model: Model
    name: str
    clip_skip: int | None = None
    control: Control | None = None
    networks: Networks = ()
    max_chunks: int | None = None


class Drawing:
    """The pictures of a run, their files, and the page that shows them."""

    def __init__(
        self, options: GenerationOptions, files: PictureFileOptions, sheet: ContactSheet | None
    ) -> None:
        """sheet: takes the pictures; None: there is no page."""
        self.options, self.sheet = options, sheet
        self.names = PictureNames(time.strftime("%Y%m%d%H%M%S"), files)
        self.paths: list[Path] = []
        self.broken = 0

    @contextmanager
    def until_stopped(self) -> Iterator[None]:
        """The time in which pictures are drawn. At its end, and on Ctrl-C and SIGTERM, what was drawn is told
        and its page written.

        Ends the program with exit code 130 or 143 after these, with 1 if pictures had values that are no
        numbers.
        """
        code = 0
        try:
            yield
        except KeyboardInterrupt as stop:
            code = exit_code(stop)
        say(_told(self.paths, self.options.outdir))
        if self.sheet is not None and self.sheet.cards:
            say(f"all of them on a page: {self.sheet.write(self.options.outdir)}")
        if self.broken:
            count = counted(self.broken, "picture")
            fail(f"{count} had values that are no numbers and were not saved; is the model whole?")
        if code or self.broken:
            sys.exit(code or 1)

    def draw(
        self, artist: Artist, pictures: Sequence[PromptRequest], labels: Mapping[str, str] | None = None
    ) -> list[Image | None]:
        """Draw and save pictures. Returns them in their order; None for one with values that are no numbers.

        pictures: as of `plan_pictures`.
        labels: what else the page says of them.
        """
        _warn_of_unused_options(artist.model, pictures)
        drawn = []
        for request, picture in _draw_batches(artist, pictures, self.options):
            drawn.append(picture)
            if picture is None:
                self.broken += 1
                continue
            path = self.options.outdir / self.names.name(request)
            is_told_sizes = artist.model.is_told_sizes
            save_picture(path, picture, request, is_told_sizes=is_told_sizes, model=artist.name)
            self.paths.append(path)
            if self.sheet is not None:
                texts = texts_of(request, is_told_sizes=is_told_sizes, model=artist.name)
                facts = {name: text for name, text in texts.items() if name != PARAMETERS}
                self.sheet.add(path, picture, {**facts, **(labels or {})})
        return drawn


def _told(paths: Sequence[Path], folder: Path) -> str:
    """What was made, for the console."""
    if not paths:
        return "no pictures were made"
    first, last = (path.relative_to(folder).as_posix() for path in (paths[0], paths[-1]))
    return f"{counted(len(paths), 'picture')} in {folder}: {first}" + (f" to {last}" if paths[1:] else "")


def _draw_batches(
    artist: Artist, pictures: Sequence[PromptRequest], options: GenerationOptions
) -> Iterator[tuple[PromptRequest, Image | None]]:
    """Each request with its picture; None for one with values that are no numbers. A progress bar shows the
    steps.
    """
    from library.generation.generate import generate
    from library.generation.samplers import count_calls

    model = artist.model
    weight = next(model.denoiser.parameters())
    calls = sum(
        count_calls(
            r.sampler, model.prediction_type, r.steps, strength_of(r, is_inpainting=model.is_inpainting)
        )
        for r in pictures
    )
    with progress_bar(total=calls, unit="step", desc="drawing") as bar:
        for start in range(0, len(pictures), options.batch_size):
            batch = pictures[start : start + options.batch_size]
            drawn = generate(
                model,
                batch,
                device=weight.device,
                dtype=weight.dtype,
                clip_skip=artist.clip_skip,
                emb_normalize=options.emb_normalize_mode,
                control=artist.control,
                networks=artist.networks,
                max_chunks=artist.max_chunks,
                on_step=bar.update,
            )
            yield from zip(batch, drawn, strict=True)


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
