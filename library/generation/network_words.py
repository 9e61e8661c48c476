"""Networks that a prompt names, as in AUTOMATIC1111: `<lora:name:0.8>`, `<lora:name:text encoder:U-Net>`,
`<lora:name:1:lbw=OUTALL>`, `<hypernet:name:1>`. Imports no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from library.network.block_weights import named_block_weights
from library.wording import shortened

WORD = re.compile(r"<(?:lora|lyco|lycoris|hypernet):([^<>]{1,2000})>")
_SUFFIXES = (".safetensors", ".pt", ".ckpt", ".bin")

Find = Callable[[str], Path]  # the file of a network's name; raises ValueError without one


@dataclass(frozen=True)
class NamedNetwork:
    """A network that a prompt names, and how strongly it counts.

    text, unet: in the text encoders and in the U-Net.
    blocks: in each block besides, see `block_weights`; none: alike.
    part: the (0-based) part of the prompt, between ANDs, that names it.
    """

    path: Path
    text: float = 1.0
    unet: float = 1.0
    blocks: tuple[float, ...] = ()
    part: int = 0


def read_word(inside: str, find: Find) -> NamedNetwork:
    """The network of what stands behind `<lora:`. Raises ValueError with what is wrong."""
    name, *settings = (part.strip() for part in inside.split(":"))
    numbers, named = list[float](), dict[str, float]()
    blocks: tuple[float, ...] = ()
    for setting in settings:
        key, equals, value = setting.partition("=")
        if equals and key.lower() == "lbw":
            blocks = named_block_weights(value)
        elif equals and key.lower() in ("te", "unet"):
            named[key.lower()] = _number(value)
        elif equals or len(numbers) == 2:
            raise ValueError(f"has a setting that is not known here: {shortened(setting)!r}")
        else:
            numbers.append(_number(setting))
    text = named.get("te", numbers[0] if numbers else 1.0)
    unet = named.get("unet", numbers[-1] if numbers else text)
    return NamedNetwork(find(name), text, unet, blocks)


def networks_in(folder: Path) -> Find:
    """Finds networks of a folder, and of those in it, by their names without suffix."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _SUFFIXES:
            for name in {path.stem, path.relative_to(folder).with_suffix("").as_posix()}:
                files.setdefault(name, []).append(path)

    def find(name: str) -> Path:
        found = files.get(name, [])
        if len(found) > 1:
            places = ", ".join(str(path.relative_to(folder)) for path in found[:3])
            raise ValueError(f"fits several files in {folder}: {places}; write the folder's name before it")
        if not found:
            near = get_close_matches(name, files, n=3, cutoff=0.5) or sorted(files)[:3]
            there = f"there is {', '.join(map(shortened, near))}" if near else "nor any other"
            raise ValueError(f"there is no network {shortened(name)!r} in {folder}; {there}")
        return found[0]

    return find


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"expects numbers for strengths, got {shortened(text)!r}")
    return number
