"""Names of a U-Net's layers in network files, without a model: between two programs', with dots or without.

    lora_unet_input_blocks_4_1_proj_in  <->  input_blocks.4.1.proj_in  <->  down_blocks.1.attentions.0.proj_in

Where the model is there, names are looked up among its own (`names.py`); here they are those of a family's
published models.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

from library.models.families import FAMILIES
from library.models.ldm.keys import to_diffusers, to_original, unet_rows
from library.network.kinds import KINDS

Naming = Literal["diffusers", "original"]
UNET = "lora_unet_"

# Names between two dots that have an underscore in them; all others have none.
_WORDS = (
    *("down_blocks", "mid_block", "up_blocks", "transformer_blocks", "time_emb_proj", "conv_shortcut"),
    *("to_q", "to_k", "to_v", "to_out", "proj_in", "proj_out", "conv_in", "conv_out", "conv_norm_out"),
    *("time_embedding", "add_embedding", "linear_1", "linear_2"),
    *("input_blocks", "middle_block", "output_blocks", "in_layers", "emb_layers", "out_layers"),
    *("skip_connection", "time_embed", "label_emb"),
    *("text_model", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "text_projection"),
    *("layer_norm1", "layer_norm2", "final_layer_norm", "token_embedding", "position_embedding"),
)
# How names begin that are the same for every family.
_ORIGINAL = tuple(f"{kind.prefix}_" for kind in KINDS.values() if kind.is_original)
_PIECE = re.compile("|".join([*(f"{word}(?=_|$)" for word in sorted(_WORDS, key=len)[::-1]), "[^_]+"]))
_PART = re.compile(r"(?:lora|oft|lllite)_(unet|te\d?)_")


def part_of(module: str) -> str:
    """Which part of a model a module is in by its name: "unet", "te", "te1" or "te2"; "" when it tells
    none.
    """
    found = _PART.match(module)
    return found[1] if found else ""


def dotted(module: str) -> str:
    """The path of a module's layer inside its part, with dots."""
    found = _PART.match(module)
    return ".".join(_PIECE.findall(module[found.end() :] if found else module))


def in_naming(path: str, naming: Naming, family: str) -> str:
    """A dotted path in a U-Net in one of its two namings; as it is when the family has no such layer."""
    forth, back = _tables(family)
    table, other = (forth, back) if naming == "diffusers" else (back, forth)
    head = path
    while head and head not in table:
        if head in other:
            return path  # it has the naming that is wanted
        head = head.rpartition(".")[0]
    return table[head] + path[len(head) :] if head else path


def settled(module: str, family: str | None) -> str:
    """A module's name as sd-scripts has it for this family; None: the family is not known."""
    if family is None or module.startswith(_ORIGINAL):
        return module
    names = FAMILIES[family].network
    part = part_of(module)
    if part == "unet":
        path = in_naming(dotted(module), "original" if names.is_original else "diffusers", family)
        return f"{module[: _end(module)]}{path.replace('.', '_')}"
    if part in ("te", "te1") and part not in names.texts:
        return f"lora_{names.texts[0]}_{module[_end(module) :]}"
    return module


def _end(module: str) -> int:
    found = _PART.match(module)
    return found.end() if found else 0


@cache
def _tables(family: str) -> tuple[dict[str, str], dict[str, str]]:
    """Original path -> Diffusers path, and back, of what has a row in a family's table."""
    names = FAMILIES[family].network
    rows = unet_rows(names.structure, has_added_embedding=names.has_sizes)
    originals = [old for old, _ in rows]
    forth = to_diffusers(originals, rows)
    return forth, to_original(forth.values(), rows)
