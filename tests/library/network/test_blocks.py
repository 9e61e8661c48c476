"""Ranks, alphas and learning rates of the U-Net's blocks."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kinds import make_kind

from library.models.base import Model
from library.models.blocks import BlockSpans
from library.models.saving import Saving
from library.network.names import module_name
from library.problems import UserError
from networks import lora

SDXL = BlockSpans(23, range(1, 10), range(10, 13), range(13, 22))
TINY = BlockSpans(17, range(8), range(8, 9), range(9, 17))  # SD 1.x with one layer a level


def create(model: Model, **changes) -> lora.Network:
    settings = {"dim": 4, "alpha": 2.0, "dropout": None, "arguments": {}, "parts": ("unet", "te"), "seed": 1}
    return lora.create(model, **settings | changes)


def sd_scripts_block(name: str, family: str) -> int:
    """The block of a U-Net module, by the rule of sd-scripts."""
    if family == "sdxl":
        kind, number = re.match(r"lora_unet_(input_blocks|middle_block|output_blocks)_(\d+)", name).groups()
        return {"input_blocks": 1, "middle_block": 10, "output_blocks": 13}[kind] + int(number)
    if "_mid_block_" in name:
        return 12
    kind, level, layers, layer = re.match(
        r"lora_unet_(down|up)_blocks_(\d)_(resnets|attentions|downsamplers|upsamplers)_(\d)", name
    ).groups()
    first = {"down": 1, "up": 13}[kind] + 3 * int(level)
    return first + (2 if layers.endswith("samplers") else int(layer))


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_blocks_are_numbered_as_in_sd_scripts(full_size: Callable[[str], Model], family: str) -> None:
    model = full_size(family)
    expected = SDXL if family == "sdxl" else BlockSpans(25, range(12), range(12, 13), range(13, 25))
    assert model.block_spans() == expected
    found = {module_name(point): point.block for point in model.attach_points()}
    of_unet = {name: block for name, block in found.items() if name.startswith("lora_unet")}
    assert of_unet == {name: sd_scripts_block(name, family) for name in of_unet}
    assert {block for name, block in found.items() if name not in of_unet} == {None}


def sizes(network: lora.Network) -> dict[str, tuple[int, float]]:
    return {name: (module.rank, float(module.alpha)) for name, module in network.by_name.items()}


def test_each_block_has_its_rank_and_alpha(tiny_model: Model) -> None:
    assert tiny_model.block_spans() == TINY
    dims, alphas = [number % 3 for number in range(17)], [0.5 * number for number in range(17)]
    conv_dims = [number % 2 for number in range(17)]
    given = {"block_dims": dims, "block_alphas": alphas, "conv_block_dims": conv_dims, "conv_alpha": [3]}
    arguments = {name: ",".join(map(str, values)) for name, values in given.items()}
    found = sizes(create(tiny_model, arguments=arguments))
    expected = {}
    for point in tiny_model.attach_points():
        size = (4, 2.0)
        if point.block is not None:
            is_large = isinstance(point.module, torch.nn.Conv2d) and point.module.kernel_size == (3, 3)
            rank = (conv_dims if is_large else dims)[point.block]
            size = (rank, (3.0 if is_large else alphas[point.block]) or float(rank))
        if size[0]:
            expected[module_name(point)] = size
    assert found == expected


def test_convolutions_without_ranks_of_their_own_have_conv_dim(tiny_model: Model) -> None:
    arguments = {"block_dims": ",".join(["2"] * 17), "conv_dim": "5", "conv_alpha": "1"}
    found = sizes(create(tiny_model, arguments=arguments, parts=("unet",)))
    assert set(found.values()) == {(2, 2.0), (5, 1.0)}
    assert found["lora_unet_mid_block_resnets_0_conv1"] == (5, 1.0)
    assert found["lora_unet_mid_block_resnets_0_time_emb_proj"] == (2, 2.0)


def rates(network: lora.Network, **parts: float) -> dict[str, float]:
    return {group["name"]: group["lr"] for group in network.param_groups(parts)}


def test_blocks_learn_at_rates_of_their_own(tiny_model: Model) -> None:
    arguments = {"down_lr_weight": "linear", "mid_lr_weight": "2", "up_lr_weight": "1,1,0.5"}
    network = create(tiny_model, arguments=arguments)
    # Attention is in the blocks 1, 3 and 5 on the way down, 3 to 7 (of 8, from 9 on) on the way up.
    up = {f"unet_block{9 + number}": 1.0 for number in (3, 4, 5, 6, 7)} | {"unet_block11": 0.5}
    down = {f"unet_block{number}": number / 7 for number in (1, 3, 5)}
    found = rates(network, unet=1.0, te=0.25)
    expected = {"textencoder": 0.25} | down | {"unet_block8": 2.0} | up
    assert found == pytest.approx({name: expected[name] for name in found})
    assert set(found) >= {"textencoder", "unet_block1", "unet_block8", "unet_block16"}
    assert [*found] == sorted(found, key=lambda name: int(name[10:]) if name[10:].isdigit() else -1)


def test_blocks_below_the_threshold_get_no_modules(tiny_model: Model) -> None:
    arguments = {"down_lr_weight": "linear", "block_lr_zero_threshold": "0.5", "conv_dim": "2"}
    network = create(tiny_model, arguments=arguments)
    blocks = {module.block for module in network.by_name.values()} - {None}
    assert blocks == {4, 5, 6, 7, 8, *range(9, 17)}  # i / 7 is above a half from 4 on
    assert "unet_block4" in rates(network, unet=1.0, te=1.0)


def test_a_lora_plus_group_has_what_is_above_and_learns_faster(tiny_model: Model) -> None:
    network = create(tiny_model, arguments={"loraplus_lr_ratio": "16", "loraplus_unet_lr_ratio": "4"})
    groups = {group["name"]: group for group in network.param_groups({"unet": 0.5, "te": 0.25})}
    assert {name: group["lr"] for name, group in groups.items()} == {
        "textencoder": 0.25,
        "textencoder plus": 4.0,
        "unet": 0.5,
        "unet plus": 2.0,
    }
    ups = [module.lora_up.weight for name, module in network.by_name.items() if "_te_" in name]
    plus = groups["textencoder plus"]["params"]
    assert len(plus) == len(ups) and all(one is other for one, other in zip(plus, ups, strict=True))
    everything = [parameter for group in groups.values() for parameter in group["params"]]
    assert len(everything) == len({id(p) for p in everything}) == 2 * len(network.by_name)


def test_lora_plus_of_one_part_leaves_the_other_in_one_group(tiny_model: Model) -> None:
    network = create(tiny_model, arguments={"loraplus_unet_lr_ratio": "4", "mid_lr_weight": "0.5"})
    found = rates(network, unet=1.0, te=1.0)
    assert found["unet_block8"] == 0.5 and found["unet_block8 plus"] == 2.0
    assert "textencoder" in found and "textencoder plus" not in found


def test_sdxl_has_three_middle_blocks() -> None:
    model = make_kind("sdxl")
    assert model.block_spans() == SDXL
    found = rates(create(model, arguments={"mid_lr_weight": "0.25,0.5,0.75"}), unet=1.0, te=1.0)
    assert found["unet_block11"] == 0.5  # the blocks beside it have no attention
    found = rates(create(model, arguments={"mid_lr_weight": "0.25,0.5", "conv_dim": "2"}), unet=1.0, te=1.0)
    assert [found[f"unet_block{number}"] for number in (10, 11, 12)] == [0.25, 0.5, 1.0]


def test_lists_of_a_wrong_length_are_all_named(tiny_model: Model, capsys: pytest.CaptureFixture) -> None:
    arguments = {"block_dims": "1,2", "conv_block_alphas": "1", "mid_lr_weight": "1,1"}
    with pytest.raises(UserError) as error:
        create(tiny_model, arguments=arguments)
    assert [str(problem) for problem in error.value.problems] == [
        "--network_args block_dims: has 2 values, this model has 17 blocks",
        "--network_args conv_block_alphas: has 1 values, this model has 17 blocks",
        "--network_args mid_lr_weight: has 2 values, this model has 1 such blocks",
    ]
    create(tiny_model, arguments={"up_lr_weight": "0.5"})
    short = "--network_args up_lr_weight has 1 values for 8 blocks: those of the others are 1"
    assert capsys.readouterr().err == f"warning: {short}\n"


def test_settings_of_parts_without_a_network_are_a_warning(
    tiny_model: Model, capsys: pytest.CaptureFixture
) -> None:
    arguments = {"mid_lr_weight": "1", "loraplus_lr_ratio": "2", "loraplus_text_encoder_lr_ratio": "2"}
    create(tiny_model, arguments=arguments, parts=("te",))
    create(tiny_model, arguments=arguments, parts=("unet",))
    ending = "has no effect: that part of the model gets no network"
    assert capsys.readouterr().err.splitlines() == [
        f"warning: --network_args mid_lr_weight {ending}",
        f"warning: --network_args loraplus_text_encoder_lr_ratio {ending}",
    ]


def test_a_network_like_a_file_has_its_layers_ranks_and_alphas(
    tiny_model: Model, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    dims = ",".join(str(number % 3) for number in range(17))
    first = create(tiny_model, arguments={"block_dims": dims, "conv_dim": "2"}, dim=3)
    first.save(tmp_path / "x.safetensors", Saving("safetensors"))
    second = create(tiny_model, like=tmp_path / "x.safetensors", arguments={"conv_dim": "7"})
    assert sizes(second) == sizes(first)
    assert second.dim is None  # there is no common one
    assert "--network_args conv_dim has no effect with --dim_from_weights" in capsys.readouterr().err
    third = create(tiny_model, like=tmp_path / "x.safetensors", parts=("te",))
    assert {name.split("_")[1] for name in third.by_name} == {"te"} and third.dim == 3
    assert all(parameter.requires_grad for parameter in third.parameters())


def norms(network: lora.Network) -> torch.Tensor:
    return torch.stack([module.delta_weight().norm() for module in network.by_name.values()]).detach()


def test_max_norm_shrinks_what_is_larger_and_nothing_else(any_model: Model) -> None:
    network = create(any_model, arguments={"conv_dim": "2"})
    generator = torch.Generator().manual_seed(0)
    for number, parameter in enumerate(network.parameters()):
        parameter.data.normal_(std=0.1 + 0.1 * (number % 4), generator=generator)
    before, tensors = norms(network), {key: t.clone() for key, t in network.tensors().items()}
    limit = float(before.median()) * 1.001  # no module's own: norms round otherwise from factors
    figures = network.limit_norms(limit)
    after = norms(network)
    torch.testing.assert_close(after, before.clamp_max(limit))
    assert int(figures["max_norm/keys_scaled"]) == int((before > limit).sum())
    torch.testing.assert_close(figures["max_norm/max_key_norm"], after.max())
    torch.testing.assert_close(figures["norm/avg_key_norm"], after.mean())
    for (name, module), norm in zip(network.by_name.items(), before, strict=True):
        down, up = (f"{name}.lora_{half}.weight" for half in ("down", "up"))
        factor = (limit / norm).sqrt() if norm > limit else torch.tensor(1.0)  # of either half
        torch.testing.assert_close(module.lora_down.weight.data, tensors[down] * factor)
        torch.testing.assert_close(module.lora_up.weight.data, tensors[up] * factor)
        if norm < limit * 0.999:
            assert torch.equal(module.lora_up.weight, tensors[up])


def test_max_norm_leaves_what_is_not_trained(tiny_model: Model) -> None:
    network = create(tiny_model)
    for parameter in network.parameters():
        torch.nn.init.ones_(parameter)
    for name, module in network.by_name.items():
        module.requires_grad_("_te_" not in name)
    before = norms(network)
    network.limit_norms(0.01)
    is_text = torch.tensor(["_te_" in name for name in network.by_name])
    assert torch.equal(norms(network)[is_text], before[is_text])
    assert (norms(network)[~is_text] < 0.0101).all()
