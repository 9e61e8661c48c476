"""Grids of a run: planned and checked before anything is drawn, then drawn with as few models as possible."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from library.generation.prompt_options import PromptSyntax
from library.generation.request import PromptRequest
from library.generation.sheet.axes import OPTION, Axis, Cell, cells_of, read_axes
from library.options.parser import Reading
from library.problems import Problems, UserError
from library.wording import shortened

if TYPE_CHECKING:
    from PIL.Image import Image

R = TypeVar("R")


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

    title: the prompt and the seed.
    """

    title: str
    pictures: list[Image | None] = field(default_factory=list)

    def draw(self, axes: Sequence[Axis]) -> Image:
        """The grid as one picture."""
        from library.generation.sheet.grid import draw_grid

        across = [f"{axes[0].name} {axes[0].label(value)}" for value in axes[0].values]
        down = [f"{axes[1].name} {axes[1].label(value)}" for value in axes[1].values] if axes[1:] else [""]
        rows = [self.pictures[row * len(across) :][: len(across)] for row in range(len(down))]
        return draw_grid(rows, across, down, title=self.title)


def plan_cells(
    reading: Reading[R],
    axes: Sequence[Axis],
    syntax: PromptSyntax,
    check: Callable[[Reading[R]], list[PromptRequest]],
) -> list[PlannedCell[R]]:
    """Every cell of a grid, checked as a run of its own.

    check: the pictures of a command line, see `command.check`.
    Raises UserError with what is wrong in any.
    """
    problems, planned = Problems(), list[PlannedCell[R]]()
    for cell in cells_of(axes):
        found = problems.attempt(_planned, reading, cell, syntax, check)
        if found is not None:
            planned.append(found)
    _once(problems).raise_if_any()
    if len({len(one.pictures) for one in planned}) > 1:
        cause = "changes how many pictures there are, so that they cannot stand side by side"
        raise UserError.of(OPTION, cause, "vary something else")
    return planned


def axes_of(text: str, run_type: type, syntax: PromptSyntax) -> list[Axis]:
    """The axes that --xy asks for, of a command with these options. Raises UserError."""
    from library.options.fields import sections_of

    return read_axes(text, list(sections_of(run_type).values()), syntax)


def by_model(
    planned: Sequence[PlannedCell[R]], key: Callable[[R], object]
) -> list[tuple[R, list[PlannedCell[R]]]]:
    """The cells by what has to be loaded for them, in their order. key: what that is, of a run's options."""
    groups: dict[object, list[PlannedCell[R]]] = {}
    for one in planned:
        groups.setdefault(key(one.run), []).append(one)
    return [(cells[0].run, cells) for cells in groups.values()]


def collect(planned: Sequence[PlannedCell[R]], drawn: Mapping[Cell, Sequence[Image | None]]) -> list[Grid]:
    """The grids of all prompts and seeds.

    drawn: each cell's pictures; a cell that was not drawn is empty.
    """
    grids = [Grid(_title(request)) for request in planned[0].pictures]
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


def _once(problems: Problems) -> Problems:
    """The problems without those that several cells share."""
    return Problems(list(dict.fromkeys(problems.found)))


def _title(request: PromptRequest) -> str:
    return f"{shortened(request.prompt)}, seed {request.seed}"


def with_fixed_seed(reading: Reading[R], section: str, seed: int) -> Reading[R]:
    """A command line with a seed, where it had none: all cells draw the same noise."""
    changed = replace(reading.sections[section], seed=seed)
    return Reading(reading.run_type, {**reading.sections, section: changed}, list(reading.problems))
