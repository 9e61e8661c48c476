"""The saves of a run: which there are, with which prompts it drew, and how they stand to one another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from library.generation.picture_texts import prompt_line, prompts_in
from library.generation.sheet.axes import in_order, run_of
from library.generation.sheet.differences import Standing
from library.models import detect_family
from library.models.weights import SUFFIXES
from library.pages.figures import percent
from library.pages.markup import Html, element
from library.problems import UserError
from library.wording import counted

MOST_PROMPTS = 12  # of a run's previews
_EXPLAINED = (
    "How far the pictures of each save are from those without it, and from those of the save before; and how "
    "different the pictures of one prompt still are from one another, in percent of what they are without. "
    "Little change from save to save says that a run has settled; falling variety says that it repeats what "
    "it was shown."
)


def saves_of(folder: Path, name: str | None) -> tuple[list[Path], bool]:
    """The saves in a run's folder, the first ones first, and whether they are whole models.

    name: the run's output name; None: whatever is there.
    Raises UserError when there are none, or those of several runs.
    """
    try:
        found = [path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in SUFFIXES]
    except OSError as error:
        raise UserError.of(folder, f"cannot be read ({error.strerror})", "give the folder of a run") from None
    runs = sorted({run_of(path.name) for path in found})
    chosen = [path for path in found if run_of(path.name) == name] if name else found
    if not chosen:
        there = f"there are {', '.join(runs)}" if runs else "give the --output_dir of a run"
        raise UserError.of(folder, f"holds no saves{f' of {name}' if name else ''}", there)
    if name is None and len(runs) > 1:
        raise UserError.of(
            folder, f"holds saves of {counted(len(runs), 'run')}", f"choose --name: {', '.join(runs)}"
        )
    chosen.sort(key=lambda path: in_order(path.name))
    are_models = [_is_model(path) for path in chosen]
    if len(set(are_models)) > 1:
        raise UserError.of(folder, "holds models and networks of one name", "move one kind elsewhere")
    return chosen, are_models[0]


def preview_prompts(folder: Path) -> list[str]:
    """The prompts of a run's previews, as prompt lines; none if it drew none."""
    lines: dict[str, None] = {}
    for path in sorted((folder / "sample").glob("*.png")):
        try:
            lines[prompt_line(*prompts_in(path))] = None
        except UserError:
            continue
    return list(lines)[:MOST_PROMPTS]


def standings(found: Sequence[Standing]) -> Html:
    """A table of saves."""
    rows = [
        element(
            "tr",
            element("td", one.name),
            *(element("td", "" if value is None else percent(value), class_="n") for value in _figures(one)),
        )
        for one in found
    ]
    heads = ("from the model", "from the save before", "variety")
    head = element("tr", element("th", "save"), *(element("th", text, class_="n") for text in heads))
    return element(
        "div",
        element(
            "p",
            _EXPLAINED,
            class_="soft",
        ),
        element("div", element("table", element("thead", head), element("tbody", rows)), class_="scroll"),
    )


def _figures(one: Standing) -> tuple[float | None, ...]:
    return one.from_base, one.from_last, one.variety


def _is_model(path: Path) -> bool:
    try:
        detect_family(str(path))
    except UserError:
        return False
    return True
