"""Packages that diffusers and transformers import because they are installed, for features not used here.

They are half of all that is imported before the first step, so they are hidden while these libraries load.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

UNUSED = (
    "bitsandbytes",
    "flash_attn",
    "gguf",
    "optimum",
    "peft",
    "scipy",
    "sklearn",
    "torchao",
    "torchvision",
)


@contextmanager
def hidden_from(library: Literal["diffusers", "transformers"]) -> Iterator[None]:
    """Context manager; inside it the library finds none of UNUSED when it is imported for the first time.

    It looks for them only then, and goes by what it found: one that was imported before would now miss what
    it counts on. For everybody else the packages are there again afterwards.
    """
    hidden = [] if library in sys.modules else [name for name in UNUSED if name not in sys.modules]
    # Python's own way to say that there is no such module: importlib.util.find_spec then finds none either.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # typed without its None
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
