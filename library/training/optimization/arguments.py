"""Classes given by name and their `name=value` arguments: of optimizers and of learning-rate schedulers."""

from __future__ import annotations

import ast
import importlib
from contextlib import suppress
from typing import Any

from library.problems import Problems, UserError

_WORDS = {"true": True, "false": False, "none": None, "null": None}
_PIP_NAMES = {"lion_pytorch": "lion-pytorch", "pytorch_optimizer": "pytorch-optimizer"}


def read_arguments(option: str, words: tuple[str, ...]) -> dict[str, Any]:
    """The Python values of words like `("weight_decay=0.01", "betas=0.9,0.999")`, by name. `true`, `false`,
    `none` and `null` mean what they mean in TOML and JSON, and a number in quotes is a number.

    option: the option that took the words, for messages.
    Raises UserError with every word whose value is no Python literal.
    """
    problems = Problems()
    values = {}
    for word in words:
        name, text = word.split("=", 1)
        try:
            is_word = text.lower() in _WORDS
            values[name] = _WORDS[text.lower()] if is_word else _number_of(ast.literal_eval(text))
        except (ValueError, SyntaxError):
            cause = f"{text!r} is no number, True, False, None, list or quoted text"
            problems.add(f"{option} {name}", cause)
    problems.raise_if_any()
    return values


def _number_of(value: object) -> object:
    """A text that is a number as that number, which someone quoted once too often; else the value."""
    if isinstance(value, str):
        with suppress(ValueError, SyntaxError):
            number = ast.literal_eval(value.strip())
            return number if isinstance(number, (int, float)) else value
    return value


def find_class(where: str, path: str, fix: str) -> type:
    """The class at a dotted path.

    where: the option that named it, for messages.
    fix: what to do when the package has no such class.
    Raises UserError, which says how to install a package that is missing.
    """
    package, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(package), name)
    except ImportError as error:
        top = package.split(".")[0]
        cause = f"cannot be imported ({error})"
        raise UserError.of(where, cause, f"pip install {_PIP_NAMES.get(top, top)}") from None
    except AttributeError:
        raise UserError.of(where, f"there is no {name} in {package}", fix) from None
    if not isinstance(found, type):
        raise UserError.of(where, "is no class", fix)
    return found
