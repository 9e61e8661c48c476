"""Module configurations read from weights: every size is in their shapes.

What shapes cannot tell (heads, norm groups, the text encoder's activation, the latents' scale) is SD 1.x's
standard unless a file's `atelier.config` or a folder's config.json says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from library.models.sd.keys import unet_structure, vae_structure
from library.models.text import BOS, EOS

Shapes = Mapping[str, tuple[int, ...]]  # by Diffusers name

# Metadata key of a .safetensors, or entry of a .ckpt: a JSON object of what weights cannot tell.
CONFIG_KEY = "atelier.config"

# What weights cannot tell, by part, as SD 1.x has it. In a U-Net `attention_head_dim` is diffusers' word for
# the number of heads. A text encoder's heads are 64 wide.
STANDARD: dict[str, dict[str, Any]] = {
    "unet": {"attention_head_dim": 8, "norm_num_groups": 32, "sample_size": 64},
    "vae": {"norm_num_groups": 32, "sample_size": 512, "scaling_factor": 0.18215},
    "text_encoder": {"num_attention_heads": None, "hidden_act": "quick_gelu"},
}
_HEAD_WIDTH = 64


def unet_config(shapes: Shapes, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of diffusers' UNet2DConditionModel."""
    structure = unet_structure(shapes)
    levels = range(structure.levels)
    middle = "mid_block.attentions.0"
    attentions = [f"down_blocks.{i}.attentions.0" if structure.attention[i] else middle for i in levels]
    depths = [_count(shapes, f"{attention}.transformer_blocks.") for attention in attentions]
    downs = ["CrossAttnDownBlock2D" if there else "DownBlock2D" for there in structure.attention]
    return {
        "in_channels": shapes["conv_in.weight"][1],
        "out_channels": shapes["conv_out.weight"][0],
        "block_out_channels": [shapes[f"down_blocks.{i}.resnets.0.conv1.weight"][0] for i in levels],
        "layers_per_block": structure.layers,
        "down_block_types": downs,
        "up_block_types": [name.replace("Down", "Up") for name in reversed(downs)],
        "cross_attention_dim": shapes[f"{middle}.transformer_blocks.0.attn2.to_k.weight"][1],
        "transformer_layers_per_block": depths if len(set(depths)) > 1 else depths[0],
        "use_linear_projection": len(shapes[f"{middle}.proj_in.weight"]) == 2,
        **_untold("unet", given),
    }


def vae_config(shapes: Shapes, given: Mapping[str, Any]) -> dict[str, Any]:
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
        **_untold("vae", given),
    }


def text_config(shapes: Shapes, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of transformers' CLIPTextConfig."""
    vocabulary, width = shapes["text_model.embeddings.token_embedding.weight"]
    config = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "projection_dim": width,
        "intermediate_size": shapes["text_model.encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": _count(shapes, "text_model.encoder.layers."),
        "max_position_embeddings": shapes["text_model.embeddings.position_embedding.weight"][0],
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": EOS,
        **_untold("text_encoder", given),
    }
    config["num_attention_heads"] = config["num_attention_heads"] or max(1, width // _HEAD_WIDTH)
    return config


def _untold(part: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What weights cannot tell of a part: the given values where there are any, else the standard."""
    return {name: given.get(name, value) for name, value in STANDARD[part].items()}


def _count(shapes: Shapes, beginning: str) -> int:
    """How many numbered things stand after a beginning of names."""
    return len({name[len(beginning) :].partition(".")[0] for name in shapes if name.startswith(beginning)})
