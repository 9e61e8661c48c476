"""Draw pictures with a model of any family, with or without networks:

    python gen_img.py --ckpt model.safetensors --prompt "a cat --n blurry --d 1" --outdir pictures
    python gen_img.py --ckpt model.safetensors --from_file prompts.txt --images_per_prompt 4 \\
        --batch_size 4 --network_weights cat.safetensors --network_mul 0.8
    python gen_img.py --ckpt model.safetensors --prompt "a cat" --image_path photos --strength 0.5

A prompt may end in options: --w width --h height --s steps --l scale --n negative prompt --d seed,seed,...
and more. The settings of a picture are in its PNG text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from library.generation.reading import read
from library.options.console import ConsoleOptions
from library.options.drawing_files import PictureFileOptions
from library.options.drawing_highres import HighresOptions
from library.options.drawing_large import LargePictureOptions
from library.options.drawing_memory import MemoryOptions
from library.options.drawing_networks import GeneratorNetworkUseOptions
from library.options.drawing_originals import OriginalOptions
from library.options.drawing_prompts import (
    GeneratorOrderOptions,
    GeneratorSourceOptions,
    GeneratorTextOptions,
)
from library.options.drawing_sampling import SamplingOptions
from library.options.generation import (
    GenerationOptions,
    GeneratorComputeOptions,
    GeneratorControlOptions,
    GeneratorModelOptions,
    GeneratorNetworkOptions,
    GeneratorPromptOptions,
    SizeOptions,
)
from library.options.sheets import SheetOptions
from library.problems import run_command, warnings_in_order

if TYPE_CHECKING:
    from library.generation.command import Loaded
    from library.generation.drawing import Outcome
    from library.generation.pictures import PictureNames
    from library.generation.request import PromptRequest
    from library.generation.sheet.page import ContactSheet


@dataclass(frozen=True)
class Run:
    model: GeneratorModelOptions
    compute: GeneratorComputeOptions
    networks: GeneratorNetworkOptions
    more_networks: GeneratorNetworkUseOptions
    control: GeneratorControlOptions
    originals: OriginalOptions
    prompts: GeneratorPromptOptions
    sources: GeneratorSourceOptions
    texts: GeneratorTextOptions
    order: GeneratorOrderOptions
    pictures: GenerationOptions
    files: PictureFileOptions
    sampling: SamplingOptions
    large: LargePictureOptions
    highres: HighresOptions
    memory: MemoryOptions
    sheets: SheetOptions
    sizes: SizeOptions
    console: ConsoleOptions


def main() -> None:
    draw_pictures(__doc__)


def draw_pictures(doc: str | None, *, family: str | None = None) -> None:
    """The whole command. family: the only one it takes, by its name in FAMILIES; None: any."""
    with warnings_in_order():
        reading = read(Run, doc)
        from library.generation.command import check

        if isinstance(sheets := reading.sections.get("sheets"), SheetOptions) and sheets.xy is not None:
            from library.generation.sheet.grids import axes_asked, plan_grids

            axes = axes_asked(reading, sheets.xy)
            planned = plan_grids(reading, axes, partial(check, family=family))
        else:
            planned, pictures = None, check(reading, family=family)
            run = reading.run
    if planned is not None:
        from library.generation.sheet.grids import draw_grids

        run = planned[0].run
        draw_grids(planned, load, drawing_with, run.pictures.outdir, sheet_of(run))
        return
    loaded, sheet = load(run, pictures), sheet_of(run)
    drawing = drawing_with(loaded, run)
    if not run.sources.comes_later:
        drawing(pictures, sheet=sheet).end(sheet)
        return
    from library.generation.asked import read_later
    from library.generation.sources import converse, draw_for_module, values_of

    def draw(asked: Sequence[PromptRequest]) -> None:
        drawing(asked, sheet=sheet).end(sheet)

    if run.sources.interactive:
        converse(read_later(reading.sections), draw, seed=run.pictures.seed)
    else:
        assert run.sources.from_module is not None
        draw_for_module(
            run.sources.from_module,
            read_later(reading.sections),
            draw,
            given=(
                values_of(reading.sections),
                loaded.model,
                [one for one, _ in loaded.networks.given],
            ),
            seed=run.pictures.seed,
            rounds=run.pictures.n_iter,
        )


def load(run: Run, pictures: Sequence[PromptRequest]) -> Loaded:
    """The model of a run with everything beside it. pictures: what is to be drawn."""
    from library.generation.command import Loaded, load, load_control_nets
    from library.generation.decoding import prepare

    named = {one.path for request in pictures for one in request.networks}
    model, networks = load(run.model, run.compute, run.networks, run.more_networks, sorted(named))
    model.zero_terminal_snr |= run.sampling.zero_terminal_snr
    control = load_control_nets(model, run.control, run.compute)
    prepare(model, run.memory)
    return Loaded(model, networks, control)


def drawing_with(loaded: Loaded, run: Run, names: PictureNames | None = None) -> partial[Outcome]:
    """The function that draws as a run asks for, see `drawing.draw`. names: of a run that goes on."""
    from library.generation.drawing import draw, names_of
    from library.generation.picture_texts import named_model

    return partial(
        draw,
        loaded.model,
        options=run.pictures,
        clip_skip=run.model.clip_skip,
        control=loaded.control,
        names=names or names_of(run.files),
        vae_batch=run.memory.vae_batch(run.pictures.batch_size),
        highres=run.highres,
        name=named_model(run.model.ckpt),
        networks=loaded.networks,
        max_chunks=run.texts.max_embeddings_multiples,
    )


def sheet_of(run: Run) -> ContactSheet | None:
    """The page that a run writes; None: none."""
    from library.generation.sheet.page import ContactSheet

    least = run.sheets.least
    return None if least is None else ContactSheet(f"Pictures of {Path(run.model.ckpt).stem}", least)


if __name__ == "__main__":
    run_command(main)
