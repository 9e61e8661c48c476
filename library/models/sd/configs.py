"""Module configurations read from weights: every size is in their shapes.

What shapes cannot tell (heads, norm groups, the text encoder's activation) is SD 1.x's standard unless the
file's
`atelier.config` or a folder's config.json says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from library.models.sd.keys import unet_structure, vae_structure
from library.models.text import BOS, EOS

Shapes = Mapping[str, tuple[int, ...]]  # by Diffusers name

LATENT_FACTOR = 0.18215  # latents are scaled by this to unit variance
CONFIG_KEY = "atelier.config"  # metadata key: a JSON object of what weights cannot tell

# What weights cannot tell, by part, as SD 1.x has it. A text encoder's heads are 64 wide.
STANDARD: dict[str, dict[str, Any]] = {
    "unet": {
        "attention_head_dim": 8,
        "norm_num_groups": 32,
    },  # diffusers' first is the number of heads in SD 1.x
    "vae": {"norm_num_groups": 32},
    "text_encoder": {"num_attention_heads": None, "hidden_act": "quick_gelu"},
}


def untold(part: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What weights cannot tell of a part: the given values where there are any, else the standard."""
    return {name: given.get(name, value) for name, value in STANDARD[part].items()}


def unet_config(shapes: Shapes, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of diffusers' UNet2DConditionModel."""
    structure = unet_structure(shapes)
    levels = range(structure.levels)
    depths = [_depth(shapes, level) if structure.attention[level] else 1 for level in levels]
    downs = ["CrossAttnDownBlock2D" if there else "DownBlock2D" for there in structure.attention]
    context = next(shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight"))
    return {
        "sample_size": 64,
        "in_channels": shapes["conv_in.weight"][1],
        "out_channels": shapes["conv_out.weight"][0],
        "block_out_channels": [shapes[f"down_blocks.{i}.resnets.0.conv1.weight"][0] for i in levels],
        "layers_per_block": structure.layers,
        "down_block_types": downs,
        "up_block_types": [name.replace("Down", "Up") for name in reversed(downs)],
        "cross_attention_dim": context,
        "transformer_layers_per_block": depths if len(set(depths)) > 1 else depths[0],
        **untold("unet", given),
    }


def vae_config(shapes: Shapes, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of diffusers' AutoencoderKL."""
    structure = vae_structure(shapes)
    levels = structure.levels
    return {
        "sample_size": 512,
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["post_quant_conv.weight"][0],
        "block_out_channels": [
            shapes[f"encoder.down_blocks.{i}.resnets.0.conv1.weight"][0] for i in range(levels)
        ],
        "layers_per_block": structure.layers,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "scaling_factor": LATENT_FACTOR,
        **untold("vae", given),
    }


def text_config(shapes: Shapes, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of transformers' CLIPTextConfig."""
    vocabulary, width = shapes["text_model.embeddings.token_embedding.weight"]
    layers = {name.split(".")[3] for name in shapes if name.startswith("text_model.encoder.layers.")}
    config = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "projection_dim": width,
        "intermediate_size": shapes["text_model.encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": len(layers),
        "max_position_embeddings": shapes["text_model.embeddings.position_embedding.weight"][0],
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": EOS,
        **untold("text_encoder", given),
    }
    config["num_attention_heads"] = config["num_attention_heads"] or max(1, width // 64)
    return config


def _depth(shapes: Shapes, level: int) -> int:
    """Transformer blocks in each attention of a level."""
    beginning = f"down_blocks.{level}.attentions.0.transformer_blocks."
    return len({name[len(beginning) :].split(".")[0] for name in shapes if name.startswith(beginning)})
