import json
from pathlib import Path

import pytest
import torch
from torch import nn

from library.models.base import Model
from library.models.sd.keys import (
    PREFIXES,
    current_vae_name,
    text_name,
    to_diffusers,
    to_original,
    unet_rows,
    unet_structure,
    vae_rows,
    vae_structure,
)
from library.models.sd.model import make_part

DATA = Path(__file__).parents[2] / "data"
TABLES = json.loads((DATA / "sd1_keys.json").read_text())
STRUCTURES = {"unet": (unet_structure, unet_rows), "vae": (vae_structure, vae_rows)}


@pytest.mark.parametrize("part", STRUCTURES)
def test_names_translate_both_ways_as_in_the_reference(part: str) -> None:
    structure, rows = STRUCTURES[part]
    old = [original.removeprefix(PREFIXES[part]) for original, _, _ in TABLES[part]]
    new = [diffusers for _, diffusers, _ in TABLES[part]]
    assert structure(old) == structure(new)
    assert to_diffusers(old, rows(structure(old))) == dict(zip(old, new, strict=True))
    assert to_original(new, rows(structure(new))) == dict(zip(new, old, strict=True))


@pytest.mark.parametrize("part", TABLES)
def test_a_full_size_model_has_the_names_and_shapes_of_the_reference(full_size_sd1: Model, part: str) -> None:
    found = {name: list(tensor.shape) for name, tensor in full_size_sd1.part_weights(part).items()}
    assert found == {original: shape for original, _, shape in TABLES[part]}


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            "unet",
            {
                "block_out_channels": [320, 640, 1280, 1280],
                "layers_per_block": 2,
                "cross_attention_dim": 768,
                "transformer_layers_per_block": 1,
                "attention_head_dim": 8,
                "norm_num_groups": 32,
                "use_linear_projection": False,
            },
        ),
        (
            "vae",
            {
                "block_out_channels": [128, 256, 512, 512],
                "layers_per_block": 2,
                "latent_channels": 4,
                "norm_num_groups": 32,
                "scaling_factor": 0.18215,
            },
        ),
        (
            "text_encoder",
            {
                "hidden_size": 768,
                "intermediate_size": 3072,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "hidden_act": "quick_gelu",
            },
        ),
    ],
)
def test_the_sizes_of_sd_1_are_read_from_its_shapes(part: str, expected: dict) -> None:
    shapes = {diffusers: tuple(shape) for _, diffusers, shape in TABLES[part]}
    with torch.device("meta"):
        module = make_part(part, shapes, {})
    config = module.config.to_dict() if part == "text_encoder" else module.config
    assert {key: config[key] for key in expected} == expected
    found = sorted(_shapes(module).values())
    assert found == sorted(
        _squeezed(shape) if "attentions" in name and part == "vae" else shape
        for name, shape in shapes.items()
    )


@pytest.mark.parametrize(
    "change",
    [
        {"layers_per_block": 2},
        {"block_out_channels": (32, 64), "down": "Cross Down", "up": "Up Cross"},
        {"block_out_channels": (32, 64, 64), "down": "Cross Down Cross", "up": "Cross Up Cross"},
        {"transformer_layers_per_block": 2},
        {"transformer_layers_per_block": (1, 2, 3, 3)},
        {"use_linear_projection": True},
        {"cross_attention_dim": 48},
    ],
    ids=str,
)
def test_any_depth_and_width_in_the_layout_is_read_from_the_weights(change: dict) -> None:
    from diffusers import UNet2DConditionModel

    config = {"block_out_channels": (32, 64, 64, 64), "layers_per_block": 1, "cross_attention_dim": 32}
    config |= {"down": "Cross Cross Cross Down", "up": "Up Cross Cross Cross"} | change
    downs, ups = config.pop("down").split(), config.pop("up").split()
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            **config,
            down_block_types=["DownBlock2D" if kind == "Down" else "CrossAttnDownBlock2D" for kind in downs],
            up_block_types=["UpBlock2D" if kind == "Up" else "CrossAttnUpBlock2D" for kind in ups],
        )
        shapes = _shapes(unet)
        rows = unet_rows(unet_structure(shapes))
        originals = to_original(shapes, rows)
        assert originals.keys() == shapes.keys()
        assert len(set(originals.values())) == len(originals)
        back = to_diffusers(originals.values(), unet_rows(unet_structure(set(originals.values()))))
        assert {back[old]: shapes[new] for new, old in originals.items()} == shapes
        assert _shapes(make_part("unet", shapes, {})) == shapes


def test_text_names_always_carry_the_wrapper_and_position_ids_are_dropped() -> None:
    assert text_name("text_model.embeddings.token_embedding.weight") == (
        "text_model.embeddings.token_embedding.weight"
    )
    assert text_name("encoder.layers.0.mlp.fc1.bias") == "text_model.encoder.layers.0.mlp.fc1.bias"
    assert text_name("text_model.embeddings.position_ids") is None
    assert text_name("text_projection.weight") is None


def test_old_diffusers_names_of_vae_attention_are_known() -> None:
    old = ["query.weight", "key.bias", "value.weight", "proj_attn.bias", "group_norm.weight"]
    new = ["to_q.weight", "to_k.bias", "to_v.weight", "to_out.0.bias", "group_norm.weight"]
    for side in ("encoder", "decoder"):
        place = f"{side}.mid_block.attentions.0."
        assert [current_vae_name(place + name) for name in old] == [place + name for name in new]
    assert current_vae_name("decoder.conv_in.weight") == "decoder.conv_in.weight"


def test_attach_points_of_a_full_size_model_equal_the_reference(full_size_sd1: Model) -> None:
    reference = json.loads((DATA / "sd1_lora_keys.json").read_text())
    points = full_size_sd1.attach_points()
    found = {
        f"lora_{point.part}_{point.path}".replace(".", "_"): _entry(point.module, full_size_sd1)
        for point in points
    }
    expected = {**reference["base"], **reference["conv"]}
    assert found == {name: entry[:4] for name, entry in expected.items()}
    base = ("Transformer2DModel", "CLIPAttention", "CLIPMLP")
    counts = [
        sum(point.part == "te" for point in points),
        sum(point.part == "unet" and point.parent in base for point in points),
        sum(point.part == "unet" for point in points),
    ]
    assert counts == [72, 192, 278]


def test_attach_points_name_their_kind_of_block(tiny_model: Model) -> None:
    by_path = {point.path: point for point in tiny_model.attach_points()}
    unet = tiny_model.denoiser
    expected = {
        "down_blocks.1.attentions.0.proj_in": (
            unet.down_blocks[1].attentions[0].proj_in,
            "Transformer2DModel",
        ),
        "down_blocks.1.resnets.0.conv_shortcut": (
            unet.down_blocks[1].resnets[0].conv_shortcut,
            "ResnetBlock2D",
        ),
        "down_blocks.0.downsamplers.0.conv": (unet.down_blocks[0].downsamplers[0].conv, "Downsample2D"),
        "up_blocks.0.upsamplers.0.conv": (unet.up_blocks[0].upsamplers[0].conv, "Upsample2D"),
        "mid_block.resnets.1.time_emb_proj": (unet.mid_block.resnets[1].time_emb_proj, "ResnetBlock2D"),
    }
    for path, (module, parent) in expected.items():
        assert (by_path[path].part, by_path[path].parent) == ("unet", parent)
        assert by_path[path].module is module
    layer = by_path["text_model.encoder.layers.1.mlp.fc1"]
    assert (layer.part, layer.parent) == ("te", "CLIPMLP")
    assert not any("conv_in" in path or "time_embedding" in path for path in by_path)


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2]


def _entry(module: nn.Module, model: Model) -> list:
    if isinstance(module, nn.Linear):
        return ["L", module.in_features, module.out_features, 1]
    side = module.kernel_size[0]
    return ["C1" if side == 1 else "C3", module.in_channels, module.out_channels, side]
