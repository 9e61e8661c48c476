"""Module configurations read from weights: every size follows from their shapes.

What does not (heads, norm groups, the text encoder's activation, the latents' scale) is the family's standard
unless a file's `atelier.config` or a folder's config.json says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from library.models.ldm.keys import hint_blocks, unet_structure, vae_structure
from library.models.ldm.layout import HEAD_WIDTH, PartLayout
from library.models.text import BOS, EOS

Shapes = Mapping[str, tuple[int, ...]]  # by canonical name
_MIDDLE = "mid_block.attentions.0"


def unet_config(part: PartLayout, shapes: Shapes, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of diffusers' UNet2DConditionModel, whose `attention_head_dim` is the number of heads."""
    encoder = encoder_config(part, shapes, given)
    return encoder | {
        "out_channels": shapes["conv_out.weight"][0],
        "up_block_types": [name.replace("Down", "Up") for name in reversed(encoder["down_block_types"])],
    }


def control_config(part: PartLayout, shapes: Shapes, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of diffusers' ControlNetModel, which has the encoder half of a U-Net.

    part: of the U-Net.
    given: the U-Net's configuration.
    """
    if f"{_MIDDLE}.proj_in.weight" not in shapes:  # the small ones for SDXL have no attention there
        texts = given["cross_attention_dim"]
        there = {"proj_in.weight": (1, 1), "transformer_blocks.0.attn2.to_k.weight": (1, texts)}
        shapes = {**shapes, **{f"{_MIDDLE}.{name}": shape for name, shape in there.items()}}
        given = {**given, "mid_block_type": "UNetMidBlock2D"}
    encoder = encoder_config(part, shapes, given)
    del encoder["sample_size"]
    if "mid_block_type" in given:
        encoder["mid_block_type"] = given["mid_block_type"]
    hint, blocks = "controlnet_cond_embedding.", range(1, hint_blocks(shapes), 2)
    wider = [shapes[f"{hint}blocks.{number}.weight"][0] for number in blocks]
    return encoder | {
        "conditioning_channels": shapes[f"{hint}conv_in.weight"][1],
        "conditioning_embedding_out_channels": [shapes[f"{hint}conv_in.weight"][0], *wider],
    }


def encoder_config(part: PartLayout, shapes: Shapes, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a U-Net and a ControlNet beside it are both told."""
    structure = unet_structure(shapes)
    widths = [shapes[f"down_blocks.{i}.resnets.0.conv1.weight"][0] for i in range(structure.levels)]
    downs = ["CrossAttnDownBlock2D" if there else "DownBlock2D" for there in structure.attention]
    is_matrix = len(shapes[f"{_MIDDLE}.proj_in.weight"]) == 2
    config = {
        "in_channels": shapes["conv_in.weight"][1],
        "block_out_channels": widths,
        "layers_per_block": structure.layers,
        "down_block_types": downs,
        "cross_attention_dim": shapes[f"{_MIDDLE}.transformer_blocks.0.attn2.to_k.weight"][1],
        "transformer_layers_per_block": _depths(shapes, structure.attention),
        "use_linear_projection": given.get("use_linear_projection", is_matrix),
        **_added_embedding(shapes),
        **part.settings(given),
    }
    config["attention_head_dim"] = config["attention_head_dim"] or [_heads(width) for width in widths]
    return config


def vae_config(part: PartLayout, shapes: Shapes, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of diffusers' AutoencoderKL."""
    structure = vae_structure(shapes)
    levels = range(structure.levels)
    return {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": [shapes[f"encoder.down_blocks.{i}.resnets.0.conv1.weight"][0] for i in levels],
        "layers_per_block": structure.layers,
        "down_block_types": ["DownEncoderBlock2D"] * structure.levels,
        "up_block_types": ["UpDecoderBlock2D"] * structure.levels,
        **part.settings(given),
    }


def text_config(part: PartLayout, shapes: Shapes, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of transformers' CLIPTextConfig."""
    vocabulary, width = shapes["text_model.embeddings.token_embedding.weight"]
    config = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "projection_dim": shapes["text_projection.weight"][0] if part.projects else width,
        "intermediate_size": shapes["text_model.encoder.layers.0.mlp.fc1.weight"][0],
        "max_position_embeddings": shapes["text_model.embeddings.position_embedding.weight"][0],
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": EOS,
        **part.settings(given),
        "num_hidden_layers": _count(shapes, "text_model.encoder.layers."),
    }
    config["num_attention_heads"] = config["num_attention_heads"] or _heads(width)
    return config


def _depths(shapes: Shapes, attention: tuple[bool, ...]) -> int | list[int]:
    """Transformer layers of each level; one number if all are equal. The last is also the middle's."""
    firsts = [f"down_blocks.{level}.attentions.0" if there else None for level, there in enumerate(attention)]
    firsts[-1] = firsts[-1] or _MIDDLE
    depths = [(_count(shapes, f"{first}.transformer_blocks.") if first else 0) or 1 for first in firsts]
    return depths if len(set(depths)) > 1 else depths[0]


def _added_embedding(shapes: Shapes) -> dict[str, Any]:
    """Further arguments of a U-Net that is conditioned on a pooled text and on sizes."""
    first = shapes.get("add_embedding.linear_1.weight")
    if first is None:
        return {}
    return {"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": first[1]}


def _heads(width: int) -> int:
    return max(1, width // HEAD_WIDTH)


def _count(shapes: Shapes, beginning: str) -> int:
    """How many different numbers follow a prefix of names."""
    return len({name[len(beginning) :].partition(".")[0] for name in shapes if name.startswith(beginning)})
