"""Names in original Stable Diffusion files <-> Diffusers names, as two-column tables read in both directions.

A table has one row per module and is generated from the structure of the network: levels, layers per level,
which levels have attention. A name is translated by its longest prefix that has a row.

A few rows of SD 1.x (original name, without prefix -> Diffusers name):

U-Net  input_blocks.1.0.in_layers.2   -> down_blocks.0.resnets.0.conv1
       middle_block.1                 -> mid_block.attentions.0
       output_blocks.2.1.conv         -> up_blocks.0.upsamplers.0.conv
VAE    encoder.down.0.block.0.norm1   -> encoder.down_blocks.0.resnets.0.norm1
       decoder.mid.attn_1.q           -> decoder.mid_block.attentions.0.to_q
       decoder.up.3.block.0.conv1     -> decoder.up_blocks.0.resnets.0.conv1
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from library.models.blocks import BlockSpans

Rows = list[tuple[str, str]]

_UNET_RESNET = (
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
)
# Of U-Nets with further conditions, e.g. on the picture's size: label_emb.0.0 -> add_embedding.linear_1.
_ADDED_EMBEDDING = (
    ("label_emb.0.0", "add_embedding.linear_1"),
    ("label_emb.0.2", "add_embedding.linear_2"),
)
_VAE_RESNET = (
    ("norm1", "norm1"),
    ("conv1", "conv1"),
    ("norm2", "norm2"),
    ("conv2", "conv2"),
    ("nin_shortcut", "conv_shortcut"),
)
_VAE_ATTENTION = (
    ("norm", "group_norm"),
    ("q", "to_q"),
    ("k", "to_k"),
    ("v", "to_v"),
    ("proj_out", "to_out.0"),
)
# Diffusers' names of these before version 0.18; folders with them are still in use.
_OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@dataclass(frozen=True)
class Structure:
    """The structure of a U-Net or VAE, as its names tell.

    levels: resolutions.
    layers: residual blocks of each level.
    attention: which levels of a U-Net have it.
    """

    levels: int
    layers: int
    attention: tuple[bool, ...] = ()


def unet_structure(names: Collection[str]) -> Structure:
    """From a U-Net's names, original (without prefix) or Diffusers."""
    if any(name.startswith("down_blocks.") for name in names):
        levels, layers = (
            _count(names, r"down_blocks\.(\d+)\."),
            _count(names, r"down_blocks\.0\.resnets\.(\d+)\."),
        )
        firsts = [f"down_blocks.{level}.attentions.0" for level in range(levels)]
    else:
        # Level i has its layers and a downsampler, but for the last; input_blocks.0 is the first convolution.
        levels = 1 + sum(
            re.fullmatch(r"input_blocks\.\d+\.0\.op\.weight", name) is not None for name in names
        )
        layers = _count(names, r"input_blocks\.(\d+)\.") // levels - 1
        firsts = [f"input_blocks.{(layers + 1) * level + 1}.1" for level in range(levels)]
    return Structure(levels, layers, tuple(f"{first}.proj_in.weight" in names for first in firsts))


def vae_structure(names: Collection[str]) -> Structure:
    """From a VAE's names, original (without prefix) or Diffusers."""
    if any(name.startswith("encoder.down_blocks.") for name in names):
        levels = _count(names, r"encoder\.down_blocks\.(\d+)\.")
        return Structure(levels, _count(names, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."))
    levels = _count(names, r"encoder\.down\.(\d+)\.")
    return Structure(levels, _count(names, r"encoder\.down\.0\.block\.(\d+)\."))


def unet_rows(structure: Structure, *, has_added_embedding: bool = False) -> Rows:
    """(original, Diffusers) for every module of a U-Net.

    has_added_embedding: whether it has conditions besides time and text.
    """
    levels, layers = structure.levels, structure.layers
    rows = [
        *(_ADDED_EMBEDDING if has_added_embedding else ()),
        ("time_embed.0", "time_embedding.linear_1"),
        ("time_embed.2", "time_embedding.linear_2"),
        ("input_blocks.0.0", "conv_in"),
        ("out.0", "conv_norm_out"),
        ("out.2", "conv_out"),
        ("middle_block.1", "mid_block.attentions.0"),
        *_inner("middle_block.0", "mid_block.resnets.0", _UNET_RESNET),
        *_inner("middle_block.2", "mid_block.resnets.1", _UNET_RESNET),
    ]
    for level in range(levels):
        for layer in range(layers):
            block = f"input_blocks.{(layers + 1) * level + layer + 1}"
            rows += _unet_layer(block, f"down_blocks.{level}", layer, structure.attention[level])
        if level < levels - 1:
            number = (layers + 1) * (level + 1)
            rows.append((f"input_blocks.{number}.0.op", f"down_blocks.{level}.downsamplers.0.conv"))
    for up in range(levels):
        attention = structure.attention[levels - 1 - up]
        for layer in range(layers + 1):
            rows += _unet_layer(
                f"output_blocks.{(layers + 1) * up + layer}", f"up_blocks.{up}", layer, attention
            )
        if up < levels - 1:
            last = f"output_blocks.{(layers + 1) * up + layers}.{2 if attention else 1}.conv"
            rows.append((last, f"up_blocks.{up}.upsamplers.0.conv"))
    return rows


def control_rows(structure: Structure, blocks: int, *, has_added_embedding: bool = False) -> Rows:
    """(original, Diffusers) for every module of a ControlNet: the encoder half of a U-Net, what embeds the
    hint, and a convolution for everything that is given to the U-Net.

    structure: of the U-Net.
    blocks: convolutions of the hint between the first and the last.
    """
    own = ("time_embed", "label_emb", "input_blocks", "middle_block")
    rows = unet_rows(structure, has_added_embedding=has_added_embedding)
    rows = [(old, new) for old, new in rows if old.split(".")[0] in own]
    hint = ["conv_in", *(f"blocks.{number}" for number in range(blocks)), "conv_out"]
    rows += [
        (f"input_hint_block.{2 * number}", f"controlnet_cond_embedding.{name}")
        for number, name in enumerate(hint)
    ]
    given = (structure.layers + 1) * structure.levels  # the first convolution, layers and downsamplers
    rows += [(f"zero_convs.{number}.0", f"controlnet_down_blocks.{number}") for number in range(given)]
    return [*rows, ("middle_block_out.0", "controlnet_mid_block")]


def hint_blocks(names: Collection[str]) -> int:
    """How many convolutions of the hint a ControlNet has between the first and the last, from its names,
    original or Diffusers.
    """
    original = _count(names, r"input_hint_block\.(\d+)\.")
    return original - 2 if original else _count(names, r"controlnet_cond_embedding\.blocks\.(\d+)\.")


def vae_rows(structure: Structure) -> Rows:
    """(original, Diffusers) for every module of a VAE."""
    levels, layers = structure.levels, structure.layers
    rows = [("quant_conv", "quant_conv"), ("post_quant_conv", "post_quant_conv")]
    for side in ("encoder", "decoder"):
        rows += [(f"{side}.{name}", f"{side}.{name}") for name in ("conv_in", "conv_out")]
        rows.append((f"{side}.norm_out", f"{side}.conv_norm_out"))
        rows += _inner(f"{side}.mid.block_1", f"{side}.mid_block.resnets.0", _VAE_RESNET)
        rows += _inner(f"{side}.mid.attn_1", f"{side}.mid_block.attentions.0", _VAE_ATTENTION)
        rows += _inner(f"{side}.mid.block_2", f"{side}.mid_block.resnets.1", _VAE_RESNET)
    for level in range(levels):
        down, up = f"encoder.down_blocks.{level}", f"decoder.up_blocks.{level}"
        old_down, old_up = f"encoder.down.{level}", f"decoder.up.{levels - 1 - level}"
        for layer in range(layers):
            rows += _inner(f"{old_down}.block.{layer}", f"{down}.resnets.{layer}", _VAE_RESNET)
        for layer in range(layers + 1):
            rows += _inner(f"{old_up}.block.{layer}", f"{up}.resnets.{layer}", _VAE_RESNET)
        if level < levels - 1:
            rows.append((f"{old_down}.downsample.conv", f"{down}.downsamplers.0.conv"))
            rows.append((f"{old_up}.upsample.conv", f"{up}.upsamplers.0.conv"))
    return rows


_BLOCK_KINDS = ("input_blocks", "middle_block", "output_blocks")


def block_numbers(names: Iterable[str]) -> dict[str, int]:
    """Original U-Net name (without prefix) -> number of its block, as sd-scripts counts for SDXL.

    0 are the embeddings of time and other conditions; input, middle and output blocks follow in order, then
    the output layer: 23 blocks in a U-Net of three levels with two layers each.
    """
    names = list(names)
    spans = block_spans(names, counts_all=True)
    numbers = {}
    for name in names:
        number = network_block(name, spans)
        others = spans.total - 1 if name.startswith("out.") else 0
        numbers[name] = others if number is None else number
    return numbers


def block_spans(names: Iterable[str], *, counts_all: bool) -> BlockSpans:
    """How a U-Net's blocks are numbered, from its original names.

    counts_all: the embeddings, every middle block and the output layer have numbers of their own, as in SDXL:
        1 + 9 + 3 + 9 + 1. Otherwise as in SD 1.x and 2.x: 12 + 1 + 12.
    """
    names = list(names)
    down, mid, up = (_count(names, rf"{kind}\.(\d+)\.") for kind in _BLOCK_KINDS)
    mid = mid if counts_all else 1
    first = int(counts_all)
    ends = (first, first + down, first + down + mid, first + down + mid + up)
    return BlockSpans(ends[3] + first, *(range(*pair) for pair in zip(ends, ends[1:], strict=False)))


def network_block(name: str, spans: BlockSpans) -> int | None:
    """The number of an original name's block; None outside input, middle and output blocks."""
    kind, number, *_ = name.split(".")
    if kind not in _BLOCK_KINDS:
        return None
    span = dict(zip(_BLOCK_KINDS, (spans.down, spans.mid, spans.up), strict=True))[kind]
    return span[min(int(number), len(span) - 1)]  # the middle may count as one


def to_diffusers(names: Iterable[str], rows: Rows) -> dict[str, str]:
    """Original name -> Diffusers name, for names that have a row."""
    return _translate(names, dict(rows))


def to_original(names: Iterable[str], rows: Rows) -> dict[str, str]:
    """Diffusers name -> original name, for names that have a row."""
    return _translate(names, {new: old for old, new in rows})


def text_name(name: str, *, projects: bool = False) -> str | None:
    """A text encoder's canonical name (always with `text_model.`) for transformers' name in a file.

    None for what is not kept: `position_ids`, which modules make themselves, and unknown names. Some files
    lack `text_model.`.
    projects: whether the text encoder ends in a projection, whose name has no `text_model.`.
    """
    if name.endswith("position_ids"):
        return None
    if projects and name == "text_projection.weight":
        return name
    name = name.removeprefix("text_model.")
    known = ("embeddings.", "encoder.layers.", "final_layer_norm.")
    return f"text_model.{name}" if name.startswith(known) else None


def current_vae_name(name: str) -> str:
    """The current Diffusers name of a VAE's tensor, from the name of any version."""
    head, dot, rest = name.partition(".attentions.0.")
    module, _, kind = rest.rpartition(".")
    return f"{head}{dot}{_OLD_VAE_ATTENTION[module]}.{kind}" if module in _OLD_VAE_ATTENTION else name


def _unet_layer(original: str, block: str, layer: int, attention: bool) -> Rows:
    rows = _inner(f"{original}.0", f"{block}.resnets.{layer}", _UNET_RESNET)
    return [*rows, (f"{original}.1", f"{block}.attentions.{layer}")] if attention else rows


def _inner(original: str, diffusers: str, rows: Iterable[tuple[str, str]]) -> Rows:
    return [(f"{original}.{old}", f"{diffusers}.{new}") for old, new in rows]


def _translate(names: Iterable[str], table: dict[str, str]) -> dict[str, str]:
    translated = {}
    for name in names:
        head = name
        while head and head not in table:
            head = head.rpartition(".")[0]
        if head:
            translated[name] = table[head] + name[len(head) :]
    return translated


def _count(names: Iterable[str], pattern: str) -> int:
    """How many different numbers the pattern's group matches at the start of names."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})
