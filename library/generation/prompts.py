"""Prompt lines: a text and, after it, options such as `--w 768 --s 20`. Imports no torch.

An option begins with " --" and a letter, so two dashes inside a text stay text: "a girl -- 10 s" has none.
What stands before the first option is the prompt, whatever it looks like: "s 10 girls" draws girls. Upper and
lower case are the same in option names. Which options there are, is in prompt_options.py.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from library.generation.prompt_options import TRAINING, PromptSyntax
from library.options.generation import SamplerName
from library.problems import Problems, UserError
from library.text_files import read_text


@dataclass(frozen=True)
class PromptRequest:
    """What is to be drawn.

    width, height: pixels, multiples of 8. steps: 1 to 1000. scale: of classifier-free guidance, 1 is none.
    seed: None lets the caller choose. more_seeds: of the prompt's second, third, ... picture.
    original_*, crop_*: what models are told that are told sizes; None is as the picture's own. *_negative:
    the same for the negative prompt, None is as for the prompt.
    """

    prompt: str
    negative: str = ""
    width: int = 512
    height: int = 512
    steps: int = 30
    scale: float = 7.5
    seed: int | None = None
    more_seeds: tuple[int, ...] = ()
    sampler: SamplerName = "ddim"
    original_width: int | None = None
    original_height: int | None = None
    original_width_negative: int | None = None
    original_height_negative: int | None = None
    crop_top: int = 0
    crop_left: int = 0

    @property
    def sizes(self) -> tuple[int, ...]:
        """Original height and width, crop top and left, target height and width."""
        height, width = self.original_height or self.height, self.original_width or self.width
        return height, width, self.crop_top, self.crop_left, self.height, self.width

    @property
    def sizes_negative(self) -> tuple[int, ...]:
        """The same for the negative prompt."""
        height, width, *others = self.sizes
        return self.original_height_negative or height, self.original_width_negative or width, *others

    @property
    def is_guided(self) -> bool:
        """Whether the negative prompt counts: guidance at scale 1 is the plain prediction."""
        return self.scale != 1


_DEFAULTS = PromptRequest("")


def read_prompts(
    path: Path, syntax: PromptSyntax = TRAINING, *, defaults: PromptRequest = _DEFAULTS
) -> list[PromptRequest]:
    """The prompts of a text file, one a line; blank lines and lines that start with `#` are skipped.

    syntax: TRAINING or GENERATOR. defaults: gives what a line leaves open. Raises UserError with every
    problem of the file, each with its line number.
    """
    problems, requests = Problems(), []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        line = line.strip()
        if line and not line.startswith("#"):
            where = f"{path}, line {number}"
            requests.append(problems.attempt(parse_prompt, line, syntax, where=where, defaults=defaults))
    if not requests:
        problems.add(path, "holds no prompts", "write one a line")
    problems.raise_if_any()
    return requests


def parse_prompt(
    line: str, syntax: PromptSyntax = TRAINING, *, where: str, defaults: PromptRequest = _DEFAULTS
) -> PromptRequest:
    """The request a line makes. where: what problems are about, e.g. a file and its line.

    Raises UserError for options that do not exist, are given twice or have a wrong value, all at once.
    """
    text, *pieces = _OPTION_START.split(line)
    problems, values, seen = Problems(), {}, set()
    for piece in pieces:
        name, _, value = piece.partition(" ")
        option = name.lower()
        if option in seen:
            problems.add(where, f"--{option} is given twice")
        elif option in syntax.options:
            try:
                values |= syntax.options[option](value.strip())
            except ValueError as error:
                problems.add(where, f"--{option} expects {error}, got {value.strip()!r}")
        elif option in syntax.not_yet:
            problems.add(where, f"--{option} is not available yet", "remove it")
        else:
            known = ", ".join(f"--{known}" for known in syntax.options)
            problems.add(where, f"there is no prompt option --{name}", f"there are {known}")
        seen.add(option)
    problems.raise_if_any()
    return dataclasses.replace(defaults, prompt=text.strip(), **values)


_OPTION_START = re.compile(r"(?:^| )--(?=[A-Za-z])")


def _read_text(path: Path) -> str:
    if path.suffix.lower() in (".toml", ".json"):
        cause = f"prompts in {path.suffix} files are not available yet"
        raise UserError.of(path, cause, "use a .txt file with a prompt a line")
    return read_text(path)
