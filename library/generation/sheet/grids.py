"""Grids of a run: planned and checked before anything is drawn, then drawn with as few models as possible."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from PIL import Image

from library.console import say
from library.files import whole_file
from library.generation.asked import syntax_of
from library.generation.drawing import Outcome, names_of
from library.generation.picture_texts import prompt_line
from library.generation.pictures import PictureNames
from library.generation.prompt_options import PromptSyntax
from library.generation.request import PromptRequest
from library.generation.sheet.axes import OPTION, Axis, Cell, cells_of, read_axes
from library.generation.sheet.grid import LONGEST, draw_grid
from library.generation.sheet.page import ContactSheet
from library.options.drawing_files import PictureFileOptions
from library.options.drawing_memory import MemoryOptions
from library.options.drawing_networks import GeneratorNetworkUseOptions
from library.options.drawing_sampling import SamplingOptions
from library.options.fields import sections_of
from library.options.generation import (
    GenerationOptions,
    GeneratorComputeOptions,
    GeneratorControlOptions,
    GeneratorModelOptions,
    GeneratorNetworkOptions,
)
from library.options.parser import Reading
from library.problems import Problems, UserError, without_warnings
from library.wording import counted, shortened

# What a model is loaded by; with other sections the same one draws.
_LOADED = (
    GeneratorModelOptions,
    GeneratorComputeOptions,
    GeneratorNetworkOptions,
    GeneratorNetworkUseOptions,
    GeneratorControlOptions,
    SamplingOptions,
    MemoryOptions,
)
R = TypeVar("R")
L = TypeVar("L")


@dataclass(frozen=True)
class PlannedCell(Generic[R]):
    """A cell with what it needs.

    run: the options with the cell's own.
    pictures: of all prompts and seeds, in the order that all cells have.
    """

    cell: Cell
    run: R
    pictures: list[PromptRequest]


@dataclass
class Grid:
    """The pictures of one prompt and seed in all cells, in their order.

    prompt: with the negative one.
    seed: of the first noise.
    """

    prompt: str
    seed: int
    pictures: list[Image.Image | None] = field(default_factory=list)

    def draw(self, axes: Sequence[Axis]) -> Image.Image:
        """The grid as one picture."""
        across, *others = [[axis.heading(value) for value in axis.values] for axis in axes]
        down = others[0] if others else [""]
        rows = [self.pictures[row * len(across) :][: len(across)] for row in range(len(down))]
        return draw_grid(rows, across, down, title=f"seed {self.seed}: {shortened(self.prompt)}")


def axes_asked(reading: Reading[R], text: str) -> list[Axis]:
    """The axes of --xy for a command line. Raises UserError with all that is wrong with them."""
    return read_axes(text, list(sections_of(reading.run_type).values()), syntax_of(reading.sections))


def plan_grids(
    reading: Reading[R], axes: Sequence[Axis], check: Callable[[Reading[R]], list[PromptRequest]]
) -> list[PlannedCell[R]]:
    """Every cell of grids, checked as a run of its own.

    check: the pictures of a command line, see `command.check`.
    Raises UserError with what is wrong in any.
    """
    reading = _with_seed(reading)
    if not check(reading):  # what is wrong in all of them is told without a cell's name
        raise UserError.of(OPTION, "needs prompts that are known before the start", "give --from_file")
    syntax = syntax_of(reading.sections)
    problems, planned = Problems(), list[PlannedCell[R]]()
    with without_warnings():  # those of the command line were given, and many cells have the same
        for cell in cells_of(axes):
            found = problems.attempt(_planned, reading, cell, syntax, check)
            if found is not None:
                planned.append(found)
    Problems(list(dict.fromkeys(problems.found))).raise_if_any()
    if len({len(one.pictures) for one in planned}) > 1:
        cause = "changes how many pictures there are, so that they cannot stand side by side"
        raise UserError.of(OPTION, cause, "vary something else")
    return planned


def draw_grids(
    planned: Sequence[PlannedCell[R]],
    load: Callable[[R, Sequence[PromptRequest]], L],
    drawing_with: Callable[[L, R, PictureNames], Callable[..., Outcome]],
    folder: Path,
    sheet: ContactSheet | None,
    finish: Callable[[list[Grid]], object] = lambda grids: None,
) -> None:
    """Draw all cells, and a picture of each grid. Ends the program as `Outcome.end`.

    load: loads what a run's pictures need; called once for all cells that need the same.
    drawing_with: the function that draws as a run asks for.
    finish: is given the grids before the page is written.
    """
    files = next(one for one in vars(planned[0].run).values() if isinstance(one, PictureFileOptions))
    names, outcome = names_of(files), Outcome(folder)
    axes, drawn = planned[0].cell.axes, dict[Cell, list[Image.Image | None]]()
    most = LONGEST // max(len(axis.values) for axis in axes)

    def draw(cells: Sequence[PlannedCell[R]]) -> None:
        """Draw cells that need the same model, which is gone when the next one is loaded."""
        loaded = load(cells[0].run, [request for one in cells for request in one.pictures])
        for one in cells:
            keep, labels = partial(_keep, drawn.setdefault(one.cell, []), most), one.cell.labels
            drawing = drawing_with(loaded, one.run, names)
            drawing(one.pictures, sheet=sheet, labels=labels, outcome=outcome, on_picture=keep)
            if outcome.code:
                break

    for cells in _by_model(planned):
        if not outcome.code:
            draw(cells)
    grids = _collect(planned, drawn)
    for number, grid in enumerate(grids):
        path = folder / f"grid_{names.timestamp}_{number:03d}.png"
        picture = grid.draw(axes)
        with whole_file(path) as temporary:
            picture.save(temporary, format="PNG")
        if sheet is not None:
            sheet.add_grid(Path(path.name), picture)
    made = f"{counted(len(grids), 'grid')} of {counted(len(planned), 'cell')}"
    say(f"{made}: {folder}/grid_{names.timestamp}_*.png")
    finish(grids)
    outcome.end(sheet)


def _by_model(planned: Sequence[PlannedCell[R]]) -> list[list[PlannedCell[R]]]:
    """The cells by what has to be loaded for them, in their order."""
    groups: dict[object, list[PlannedCell[R]]] = {}
    for one in planned:
        sections = vars(one.run)
        loaded = tuple(section for section in sections.values() if isinstance(section, _LOADED))
        files = frozenset(network.path for request in one.pictures for network in request.networks)
        groups.setdefault((loaded, files), []).append(one)
    return list(groups.values())


def _collect(
    planned: Sequence[PlannedCell[R]], drawn: Mapping[Cell, Sequence[Image.Image | None]]
) -> list[Grid]:
    """The grids of all prompts and seeds.

    drawn: each cell's pictures; a cell that was not drawn is empty.
    """
    grids = [
        Grid(prompt_line(request.prompt, request.negative), request.chosen_seed)
        for request in planned[0].pictures
    ]
    for one in planned:
        pictures = drawn.get(one.cell, ())
        for number, grid in enumerate(grids):
            grid.pictures.append(pictures[number] if number < len(pictures) else None)
    return grids


def _planned(
    reading: Reading[R],
    cell: Cell,
    syntax: PromptSyntax,
    check: Callable[[Reading[R]], list[PromptRequest]],
) -> PlannedCell[R]:
    sections: dict[str, Any] = cell.sections(reading.sections)
    changed = Reading(reading.run_type, sections)
    return PlannedCell(cell, changed.run, cell.requests(check(changed), syntax))


def _with_seed(reading: Reading[R]) -> Reading[R]:
    """A command line with a seed, where it had none: all cells begin with the same noise."""
    changed = {
        name: replace(section, seed=random.SystemRandom().randrange(2**31))
        for name, section in reading.sections.items()
        if isinstance(section, GenerationOptions) and section.seed is None
    }
    return Reading(reading.run_type, {**reading.sections, **changed}, list(reading.problems))


def _keep(pictures: list[Image.Image | None], most: int, picture: Image.Image | None) -> None:
    """Keep a picture, in the size that a grid has room for."""
    if picture is not None:
        picture = picture.copy()
        picture.thumbnail((most, most))
    pictures.append(picture)
