"""Draw with every save of a run: which one to keep, and at which strength?

python tools/compare_saves.py output --ckpt base.safetensors --strengths 0.6 1 --images_per_prompt 2
python tools/compare_saves.py output --ckpt base.safetensors --prompt "a photo of shs dog --s 20" --name shs

The prompts are those of the run's previews, unless --prompt or --from_file gives others. The page,
output/saves/index.html, has a grid for each prompt and seed, the model without the run first, and says how
far the saves are from it and from one another.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import gen_img
from library.generation.reading import read
from library.options.generation import GenerationOptions, GeneratorModelOptions, GeneratorPromptOptions
from library.options.parser import Reading
from library.options.sheets import SavesOptions
from library.problems import UserError, run_command, warnings_in_order

if TYPE_CHECKING:
    from library.generation.sheet.axes import Axis
    from library.generation.sheet.grids import Grid
    from library.generation.sheet.page import ContactSheet

PROMPTS = "prompts.txt"  # where a run's own are written


@dataclass(frozen=True)
class Run(gen_img.Run):
    saves: SavesOptions


def main() -> None:
    with warnings_in_order():
        reading = read(Run, __doc__)
        if reading.problems:
            raise UserError(reading.problems)
        from library.generation.command import check
        from library.generation.sheet.grids import draw_grids, plan_grids
        from library.generation.sheet.page import ContactSheet

        axes = _axes(reading)
        reading = _with_defaults(reading)
        planned = plan_grids(reading, axes, check)
    run = planned[0].run
    sheet = ContactSheet(f"Saves in {run.saves.run_dir.name or run.saves.run_dir}")

    finish = partial(_tell_differences, sheet, axes)
    draw_grids(planned, gen_img.load, gen_img.drawing_with, run.pictures.outdir, sheet, finish)


def _axes(reading: Reading[Run]) -> list[Axis]:
    """The model without the run and its saves, and the strengths of networks."""
    from library.generation.sheet.axes import Axis
    from library.generation.sheet.saves import saves_of
    from library.options.fields import sections_of, specs_of

    options: SavesOptions = reading.sections["saves"]
    model: GeneratorModelOptions = reading.sections["model"]
    specs = {spec.name: spec for section in sections_of(Run).values() for spec in specs_of(section)}
    paths, are_models = saves_of(options.run_dir, options.name)
    values = [model.ckpt if are_models else "", *map(str, paths)]
    axes = [Axis("save", tuple(values), specs["ckpt" if are_models else "network_weights"], "")]
    if options.strengths and are_models:
        raise UserError.of(
            "--strengths", f"the saves in {options.run_dir} are models, not networks", "remove it"
        )
    if options.strengths:
        strengths = tuple(f"{strength:g}" for strength in options.strengths)
        axes.append(Axis("strength", strengths, specs["network_mul"], ""))
    return axes


def _with_defaults(reading: Reading[Run]) -> Reading[Run]:
    """The command line with the run's own prompts, and its pictures in a folder inside the run's."""
    from library.files import whole_file
    from library.generation.sheet.saves import preview_prompts

    sections: dict[str, Any] = dict(reading.sections)
    folder: Path = sections["saves"].run_dir
    pictures: GenerationOptions = sections["pictures"]
    if pictures.outdir == GenerationOptions().outdir:
        pictures = replace(pictures, outdir=folder / "saves")
    prompts: GeneratorPromptOptions = sections["prompts"]
    if prompts.prompt is None and prompts.from_file is None:
        lines = preview_prompts(folder)
        if not lines:
            cause = "has no previews (sample/*.png) whose prompts could be drawn"
            raise UserError.of(folder, cause, "give --prompt or --from_file")
        with whole_file(pictures.outdir / PROMPTS) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        prompts = GeneratorPromptOptions(from_file=pictures.outdir / PROMPTS)
    return Reading(reading.run_type, {**sections, "pictures": pictures, "prompts": prompts})


def _tell_differences(sheet: ContactSheet, axes: list[Axis], grids: list[Grid]) -> None:
    """Put how the saves differ, at the last strength, on the page."""
    from library.generation.sheet.differences import compare
    from library.generation.sheet.saves import standings

    saves = axes[0].values
    last = -len(saves)  # the row of the last strength
    by_prompt: dict[str, list[Grid]] = {}
    for grid in grids:
        by_prompt.setdefault(grid.prompt, []).append(grid)
    columns = [
        [[grid.pictures[last:][place] for grid in some] for some in by_prompt.values()]
        for place in range(len(saves))
    ]
    names = [axes[0].label(value) for value in saves]
    found = compare(columns[0], list(zip(names[1:], columns[1:], strict=True)))
    sheet.parts["Saves"] = standings(found)


if __name__ == "__main__":
    run_command(main)
