"""Prompts that come while pictures are drawn: typed in, or made by a module of one's own."""

from __future__ import annotations

import importlib.util
import itertools
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

from library.console import fail
from library.generation.request import PromptRequest
from library.problems import UserError
from library.randomness import derive_seed
from library.wording import one_line

# (a line, its place for messages, a seed) -> the pictures it asks for; raises UserError
Read = Callable[[str, str, int], Sequence[PromptRequest]]
Draw = Callable[[Sequence[PromptRequest]], None]


def converse(read: Read, draw: Draw, *, seed: int | None) -> None:
    """Draw the prompts that are typed in, a line each, until the input ends. A mistake is told, and the next
    line is asked for; so are pictures that could not be made.
    """
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        with suppress(ImportError):  # Windows has none
            import readline  # noqa: F401  # lines can be edited, and earlier ones be called back
    number, seed = 0, _seed(seed)
    for line in _lines("prompt: " if is_terminal else ""):
        if not line.strip() or line.startswith("#"):
            continue
        number += 1
        try:
            draw(read(line, f"prompt {number}", seed_of(seed, number)))
        except UserError as error:
            for problem in error.problems:
                fail(str(problem))
        except SystemExit as end:
            if end.code != 1:  # 1: some pictures could not be made, which was told
                raise


def _lines(shown: str) -> Iterator[str]:
    while True:
        try:
            yield input(shown)
        except EOFError:
            return
        except UnicodeDecodeError:
            fail("this is not UTF-8 text; type the prompt again")


def check_prompter(path: Path) -> None:
    """Raises UserError when a file is no module that makes prompts."""
    _maker_of(path)


def draw_for_module(
    path: Path,
    read: Read,
    draw: Draw,
    *,
    given: tuple[object, object, object],
    seed: int | None,
    rounds: int,
) -> None:
    """Draw the prompts that a file of the user's own makes, round by round, each until it says None.

    As in sd-scripts, its get_prompter(args, pipe, networks) gives a function of (args, pipe, seed_random,
    iter_seed, prompt_index, global_step).

    given: what stands for args, pipe and networks there: the options by name, the model and its networks.
    Raises UserError when it fails or says something that is no prompt.
    """
    options, model, networks = given
    prompter = _called(path, _maker_of(path), options, model, networks)
    if not callable(prompter):
        raise UserError.of(path, "get_prompter gave nothing that can be called")
    seed, step = _seed(seed), 0
    for iteration in range(rounds):
        rng, own = random.Random(derive_seed(seed, "prompter", iteration)), seed_of(seed, iteration + 1)
        for index in itertools.count():
            said = _called(path, prompter, options, model, rng, own, index, step)
            if said is None:
                break
            if not isinstance(said, str):
                raise UserError.of(path, f"gave {one_line(repr(said))[:60]} as a prompt, which is no text")
            step += 1
            draw(read(said, f"{path}, prompt {step}", seed_of(seed, step)))


def values_of(sections: Mapping[str, object]) -> SimpleNamespace:
    """The options of all sections by name as modules of sd-scripts expect them, strengths as numbers."""
    found = {name: value for one in sections.values() for name, value in vars(one).items()}
    if "network_mul" in found:
        found["network_mul"] = tuple(one.strength for one in found["network_mul"])
    return SimpleNamespace(**found)


def seed_of(seed: int, number: int) -> int:
    """The seed of the n-th prompt, counted from 1: the first has the run's own."""
    return seed if number == 1 else derive_seed(seed, "prompt", number) % 2**31


def _seed(seed: int | None) -> int:
    return random.SystemRandom().randrange(2**31) if seed is None else seed


def _maker_of(path: Path) -> Callable[..., object]:
    spec = importlib.util.spec_from_file_location("prompter", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UserError.of(path, "there is no such Python file", "give --from_module a .py file")
    module = importlib.util.module_from_spec(spec)
    _called(path, spec.loader.exec_module, module)
    if not callable(getattr(module, "get_prompter", None)):
        raise UserError.of(path, "has no function get_prompter(args, pipe, networks)")
    maker: Callable[..., object] = module.get_prompter
    return maker


def _called(path: Path, function: Callable[..., object], *values: object) -> object:
    """A user's function, called. Raises UserError when it fails."""
    try:
        return function(*values)
    except Exception as error:
        raise UserError.of(path, f"fails: {type(error).__name__}: {one_line(str(error))}") from error
