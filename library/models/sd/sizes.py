"""How large a network is, read from its tensors' shapes: the arguments its diffusers or transformers class
takes.

Names here are Diffusers'. What shapes cannot tell is the family's standard (`STANDARD`) unless the model's
own
files say otherwise.
"""

from __future__ import annotations

import json
from typing import Any

from library.models.base import Part
from library.models.sd.keys import unet_structure, vae_structure
from library.problems import UserError

Shapes = dict[str, tuple[int, ...]]
Config = dict[str, Any]

# The metadata key (.safetensors) or top-level entry (.ckpt) in which a file says what shapes cannot tell.
CONFIG_KEY = "atelier.config"

# SD 1.x as published. `attention_head_dim` is what diffusers calls the number of heads of a U-Net; the text
# encoder's standard is a head for every 64 of its width.
STANDARD: dict[Part, Config] = {
    "unet": {"attention_head_dim": 8, "norm_num_groups": 32, "sample_size": 64},
    "text_encoder": {"num_attention_heads": None, "hidden_act": "quick_gelu"},
    "vae": {"norm_num_groups": 32, "sample_size": 512, "scaling_factor": 0.18215},
}
_HEAD_WIDTH = 64


def config_of(part: Part, shapes: Shapes, said: Config) -> Config:
    """The arguments of a part's class. shapes: by canonical name; said: what the files say of STANDARD's
    keys.

    Raises UserError naming a tensor that is missing.
    """
    try:
        return {**_READERS[part](shapes), **_untold(part, shapes, said)}
    except KeyError as error:
        raise UserError.of(
            f"{part} weights", f"{error.args[0]} is missing", "use a complete checkpoint"
        ) from error


def said_in_json(text: str | None, where: object) -> dict[str, Config]:
    """What a file's CONFIG_KEY says: a config for each part, and prediction_type. {} when it says nothing."""
    if text is None:
        return {}
    try:
        said = json.loads(text)
    except ValueError as error:
        raise UserError.of(where, f"its {CONFIG_KEY} is not valid JSON") from error
    if not isinstance(said, dict) or not all(isinstance(said.get(part, {}), dict) for part in STANDARD):
        raise UserError.of(where, f"its {CONFIG_KEY} is not an object with one for each part")
    return said


def untold_json(configs: dict[Part, Config], prediction_type: str) -> str:
    """The CONFIG_KEY text for a model."""
    said: dict[str, Any] = {part: {key: configs[part][key] for key in STANDARD[part]} for part in STANDARD}
    return json.dumps({**said, "prediction_type": prediction_type}, sort_keys=True)


def _untold(part: Part, shapes: Shapes, said: Config) -> Config:
    config = {key: said.get(key, standard) for key, standard in STANDARD[part].items()}
    if part == "text_encoder" and config["num_attention_heads"] is None:
        width = shapes["text_model.embeddings.token_embedding.weight"][1]
        config["num_attention_heads"] = max(1, width // _HEAD_WIDTH)
    return config


def _unet(shapes: Shapes) -> Config:
    structure = unet_structure(shapes)
    levels = range(structure.levels)
    down = ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in structure.attention]
    up = ["CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(structure.attention)]
    middle = "mid_block.attentions.0"
    depths = [
        _depth(shapes, f"down_blocks.{level}.attentions.0" if structure.attention[level] else middle)
        for level in levels
    ]
    return {
        "in_channels": shapes["conv_in.weight"][1],
        "out_channels": shapes["conv_out.weight"][0],
        "block_out_channels": [shapes[f"down_blocks.{level}.resnets.0.conv1.weight"][0] for level in levels],
        "layers_per_block": structure.layers,
        "down_block_types": down,
        "up_block_types": up,
        "transformer_layers_per_block": depths[0] if len(set(depths)) == 1 else depths,
        "cross_attention_dim": shapes[f"{middle}.transformer_blocks.0.attn2.to_k.weight"][1],
        "use_linear_projection": len(shapes[f"{middle}.proj_in.weight"]) == 2,
    }


def _depth(shapes: Shapes, attention: str) -> int:
    """Transformer blocks in an attention module."""
    depth = 0
    while f"{attention}.transformer_blocks.{depth}.norm1.weight" in shapes:
        depth += 1
    return depth


def _vae(shapes: Shapes) -> Config:
    structure = vae_structure(shapes)
    levels = range(structure.levels)
    return {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": [
            shapes[f"encoder.down_blocks.{level}.resnets.0.conv1.weight"][0] for level in levels
        ],
        "layers_per_block": structure.layers,
        "down_block_types": ["DownEncoderBlock2D"] * structure.levels,
        "up_block_types": ["UpDecoderBlock2D"] * structure.levels,
    }


def _text_encoder(shapes: Shapes) -> Config:
    embeddings, layers = "text_model.embeddings", "text_model.encoder.layers"
    vocabulary, width = shapes[f"{embeddings}.token_embedding.weight"]
    depth = 0
    while f"{layers}.{depth}.mlp.fc1.weight" in shapes:
        depth += 1
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "projection_dim": width,
        "max_position_embeddings": shapes[f"{embeddings}.position_embedding.weight"][0],
        "num_hidden_layers": depth,
        "intermediate_size": shapes[f"{layers}.0.mlp.fc1.weight"][0],
    }


_READERS = {"unet": _unet, "vae": _vae, "text_encoder": _text_encoder}
