import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from library.models.base import Model
from library.models.ldm.building import make_part
from library.models.ldm.keys import (
    block_numbers,
    current_vae_name,
    text_name,
    to_diffusers,
    to_original,
    unet_rows,
    unet_structure,
)
from library.models.ldm.layout import PartLayout, Piece
from library.models.ldm.model import LatentDiffusion
from library.models.ldm.pieces import originals_of, pieces_of
from library.models.sd.model import SD1, SD2
from library.models.sdxl.model import SDXL

DATA = Path(__file__).parents[2] / "data"
LAYOUTS = {layout.family: layout for layout in (SD1, SD2, SDXL)}
PARTS = [(family, part) for family, layout in LAYOUTS.items() for part in layout.parts]
FullSize = Callable[[str], LatentDiffusion]


@cache
def table(family: str, part: str) -> list[tuple[str, str, list[int]]]:
    """(original name, Diffusers name or words, shape) of the published checkpoint. All have the same VAE."""
    where = "sd1" if part == "vae" else family
    return json.loads((DATA / f"{where}_keys.json").read_text())[part]


@cache
def expected_pieces(family: str, part: str) -> dict[str, Piece]:
    """Diffusers name -> where it is in the single file, as the table says."""
    pieces = {}
    for original, new, _ in table(family, part):
        if joined := re.fullmatch(r"cat\(q,k,v\) of (.*)\{q,k,v\}(.*)", new):
            pieces |= {f"{joined[1]}{x}{joined[2]}": Piece(original, i) for i, x in enumerate("qkv")}
        elif new != "(not in Diffusers)":
            pieces[new] = Piece(original, is_transposed=new == "text_projection.weight")
    return pieces


@pytest.mark.parametrize(("family", "part"), PARTS)
def test_names_translate_both_ways_as_in_the_reference(family: str, part: str) -> None:
    layout = LAYOUTS[family].parts[part]
    names = [original.removeprefix(layout.prefix) for original, _, _ in table(family, part)]
    expected = expected_pieces(family, part)
    found = pieces_of(layout, names)
    assert {new: piece._replace(name=layout.prefix + piece.name) for new, piece in found.items()} == expected
    assert pieces_of(layout, list(expected)) == {new: Piece(new) for new in expected}

    tensors = {new: torch.empty(2, 2, device="meta") for new in expected}
    assert originals_of(layout, tensors).keys() == {piece.name for piece in expected.values()}


@pytest.mark.parametrize(("family", "part"), PARTS)
def test_a_full_size_model_has_the_names_and_shapes_of_the_reference(
    full_size: FullSize, family: str, part: str
) -> None:
    found = {name: list(t.shape) for name, t in full_size(family).part_weights(part).items()}
    shapes = {name: shape for name, new, shape in table(family, part) if new != "(not in Diffusers)"}
    assert found == shapes


def test_query_key_and_value_lie_one_below_the_other_and_the_projection_is_transposed() -> None:
    """OpenCLIP computes x @ in_proj_weight.T and pooled @ text_projection; transformers x @ W.T for each."""
    part = PartLayout("open_clip", "p.", {}, projects=True)
    layer = "text_model.encoder.layers.0.self_attn."
    tensors = {f"{layer}{x}_proj.weight": torch.full((2, 2), i) for i, x in enumerate("qkv")}
    tensors |= {f"{layer}{x}_proj.bias": torch.full((2,), i) for i, x in enumerate("qkv")}
    tensors["text_projection.weight"] = torch.tensor([[1, 2], [3, 4], [5, 6]])  # (projected, width)
    found = originals_of(part, tensors)
    assert found["p.transformer.resblocks.0.attn.in_proj_weight"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert found["p.transformer.resblocks.0.attn.in_proj_bias"].tolist() == [0, 0, 1, 1, 2, 2]
    assert found["p.text_projection"].tolist() == [[1, 3, 5], [2, 4, 6]]  # (width, projected)


@pytest.mark.parametrize(
    ("name", "piece"),
    [
        ("text_projection", Piece("text_projection", is_transposed=True)),
        ("text_projection.weight", Piece("text_projection.weight")),
    ],
)
def test_a_projection_under_transformers_name_is_as_transformers_has_it(name: str, piece: Piece) -> None:
    names = ["transformer.resblocks.0.ln_1.bias", name]
    assert pieces_of(SDXL.parts["text_encoder_2"], names)["text_projection.weight"] == piece


@pytest.mark.parametrize(("layers", "used"), [(24, 23), (23, 23), (3, 3)])
def test_of_an_sd_2_text_encoder_23_layers_are_used(layers: int, used: int) -> None:
    names = [f"transformer.resblocks.{i}.ln_1.weight" for i in range(layers)]
    assert len(pieces_of(SD2.parts["text_encoder"], names)) == used
    assert len(pieces_of(SD2.parts["text_encoder"], names, {"num_hidden_layers": 2})) == 2


CONFIGS = {
    ("sd1", "unet"): {
        "block_out_channels": [320, 640, 1280, 1280],
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "transformer_layers_per_block": 1,
        "attention_head_dim": 8,
        "norm_num_groups": 32,
        "use_linear_projection": False,
        "addition_embed_type": None,
    },
    ("sd2", "unet"): {
        "block_out_channels": [320, 640, 1280, 1280],
        "layers_per_block": 2,
        "cross_attention_dim": 1024,
        "transformer_layers_per_block": 1,
        "attention_head_dim": [5, 10, 20, 20],
        "norm_num_groups": 32,
        "use_linear_projection": True,
        "sample_size": 96,
    },
    ("sdxl", "unet"): {
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 2,
        "cross_attention_dim": 2048,
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "sample_size": 128,
    },
    ("sd1", "text_encoder"): {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "hidden_act": "quick_gelu",
    },
    ("sd2", "text_encoder"): {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
    },
    ("sdxl", "text_encoder"): {"hidden_size": 768, "num_hidden_layers": 12, "hidden_act": "quick_gelu"},
    ("sdxl", "text_encoder_2"): {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "hidden_act": "gelu",
        "projection_dim": 1280,
    },
    ("sd1", "vae"): {
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "latent_channels": 4,
        "norm_num_groups": 32,
        "scaling_factor": 0.18215,
    },
    ("sd2", "vae"): {"scaling_factor": 0.18215},
    ("sdxl", "vae"): {"scaling_factor": 0.13025, "sample_size": 1024, "force_upcast": True},
}


@pytest.mark.parametrize(("family", "part"), CONFIGS)
def test_the_sizes_of_published_models_are_read_from_their_shapes(family: str, part: str) -> None:
    layout = LAYOUTS[family].parts[part]
    files = {original: tuple(shape) for original, _, shape in table(family, part)}
    shapes = {new: piece.shape(files[piece.name]) for new, piece in expected_pieces(family, part).items()}
    with torch.device("meta"):
        module = make_part(layout, shapes, {})
    config = module.config if isinstance(module.config, dict) else module.config.to_dict()
    expected = CONFIGS[family, part]
    assert {key: config[key] for key in expected} == expected
    found = sorted(_shapes(module).values())
    assert found == sorted(
        shape[:2] if "attentions" in name and part == "vae" else shape for name, shape in shapes.items()
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
        assert _shapes(make_part(SD1.parts["unet"], shapes, {})) == shapes


def test_text_names_always_carry_the_wrapper_and_position_ids_are_dropped() -> None:
    assert text_name("text_model.embeddings.token_embedding.weight") == (
        "text_model.embeddings.token_embedding.weight"
    )
    assert text_name("encoder.layers.0.mlp.fc1.bias") == "text_model.encoder.layers.0.mlp.fc1.bias"
    assert text_name("text_model.embeddings.position_ids") is None
    assert text_name("text_projection.weight") is None
    assert text_name("text_projection.weight", projects=True) == "text_projection.weight"


def test_old_diffusers_names_of_vae_attention_are_known() -> None:
    old = ["query.weight", "key.bias", "value.weight", "proj_attn.bias", "group_norm.weight"]
    new = ["to_q.weight", "to_k.bias", "to_v.weight", "to_out.0.bias", "group_norm.weight"]
    for side in ("encoder", "decoder"):
        place = f"{side}.mid_block.attentions.0."
        assert [current_vae_name(place + name) for name in old] == [place + name for name in new]
    assert current_vae_name("decoder.conv_in.weight") == "decoder.conv_in.weight"


def test_blocks_are_counted_as_sd_scripts_counts_them(full_size: FullSize) -> None:
    numbers = {
        "time_embed.0.weight": 0,
        "label_emb.0.2.bias": 0,
        "input_blocks.0.0.weight": 1,
        "input_blocks.8.1.norm.bias": 9,
        "middle_block.0.in_layers.0.bias": 10,
        "middle_block.2.in_layers.0.bias": 12,
        "output_blocks.0.0.in_layers.0.bias": 13,
        "output_blocks.8.0.in_layers.0.bias": 21,
        "out.2.bias": 22,
    }
    prefix = SDXL.parts["unet"].prefix
    every = block_numbers(original.removeprefix(prefix) for original, _, _ in table("sdxl", "unet"))
    assert {name: every[name] for name in numbers} == numbers
    blocks = full_size("sdxl").denoiser_blocks()
    assert len(blocks) == 23
    assert sum(map(len, blocks)) == len(list(full_size("sdxl").denoiser.parameters()))
    assert any(p is full_size("sdxl").denoiser.conv_out.bias for p in blocks[22])


COUNTS = {
    "sd1": [72, 192, 278],
    "sd2": [138, 192, 278],
    "sd2_conv": [138, 192, 278],  # with the projections as convolutions
    "sdxl": [264, 722, 788],
}


@pytest.mark.parametrize("name", COUNTS)
def test_attach_points_of_a_full_size_model_equal_the_reference(full_size: FullSize, name: str) -> None:
    reference = json.loads((DATA / f"{name}_lora_keys.json").read_text())
    family, _, is_convolved = name.partition("_")
    changes = {"use_linear_projection": False} if is_convolved else {}
    points = full_size(family, **changes).attach_points()
    found = {f"lora_{point.prefix}_{point.path}".replace(".", "_"): _entry(point.module) for point in points}
    expected = {**reference["base"], **reference["conv"]}
    assert found == {name: entry[:4] for name, entry in expected.items()}
    base = ("Transformer2DModel", "CLIPAttention", "CLIPMLP")
    counts = [
        sum(point.part == "te" for point in points),
        sum(point.part == "unet" and point.parent in base for point in points),
        sum(point.part == "unet" for point in points),
    ]
    assert counts == COUNTS[name]


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


def _entry(module: nn.Module) -> list:
    if isinstance(module, nn.Linear):
        return ["L", module.in_features, module.out_features, 1]
    side = module.kernel_size[0]
    return ["C1" if side == 1 else "C3", module.in_channels, module.out_channels, side]
