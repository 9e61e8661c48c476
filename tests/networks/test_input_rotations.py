"""The kinds that rotate what a layer is given: OFTv2 and PEFT's BOFT."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from golden_layers import check_layer, close, golden
from network_contract import CHECKS, Case, Check, point_at

from library.models.base import Model
from library.network.rotation import neumann, skew_of_triangles
from library.problems import UserError
from networks import boft, lora, oft_v2

DATA = Path(__file__).parents[1] / "data"
OFT = Case(oft_v2, "oft_v2", {"enable_conv": "true"}, draws=False)
BOFT = Case(boft, "boft", {"enable_conv": "true"}, draws=False)
LORA = Case(lora, "lora")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_an_oft_v2_keeps_the_contract(check: Check, any_model: Model, tmp_path: Path) -> None:
    check(OFT, any_model, tmp_path)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_a_boft_keeps_the_contract(check: Check, any_model: Model, tmp_path: Path) -> None:
    check(BOFT, any_model, tmp_path)


@pytest.mark.parametrize("name", ["neumann", "conv"])
def test_the_numbers_of_oft_v2_are_those_of_peft(name: str) -> None:
    """Of convolutions, those of sd-scripts and OneTrainer."""
    entry = golden("oft_v2")[name]
    weight = torch.tensor(entry["weight"])
    side = {3: 3, 6: 4}[weight.shape[1]]
    check_layer(entry, lambda point: oft_v2.OFTv2Module(point, (2, side)), {"oft_R.weight": weight})


def test_onetrainers_scaled_weights_are_divided() -> None:
    entry = golden("oft_v2")["scaled"]
    module = oft_v2.OFTv2Module(point_at(torch.nn.Linear(6, 4)), (2, 3), is_scaled=True)
    module.oft_R.weight.data = torch.tensor(entry["weight"])
    close(module.make_matrices() + torch.eye(3), torch.tensor(entry["R_blocks"]))
    assert module.divisor == pytest.approx(entry["divided_by"])
    assert module.state_dict().keys() == {"oft_R.weight", "oft_R.scaled_oft"}


def test_a_shared_block_stands_at_every_place() -> None:
    entry = golden("oft_v2")["block_share"]
    module = oft_v2.OFTv2Module(point_at(torch.nn.Linear(6, 4)), (1, 3))
    module.oft_R.weight.data = torch.tensor(entry["weight"])
    close(torch.block_diag(*(module.make_matrices() + torch.eye(3))), torch.tensor(entry["R"]))


def test_constrained_weights_are_shrunk_in_training_and_in_files() -> None:
    entry = golden("oft_v2")["coft"]
    module = oft_v2.OFTv2Module(point_at(torch.nn.Linear(6, 4)), (2, 3))
    module.eps = entry["eps"]
    before, after = torch.tensor(entry["weight_before"]), torch.tensor(entry["weight_after"])
    module.oft_R.weight.data = before.clone()
    close(module.file_tensors()["oft_R.weight"], after)
    module.oft_R.weight.data = before.clone()
    module.train().matrices()
    close(module.oft_R.weight, after)
    close(module.make_matrices(), neumann(skew_of_triangles(after)))


def test_block_sizes_become_the_nearest_that_fit() -> None:
    for width, wanted, used in golden("oft_v2")["block_adjust"]:
        layer = torch.nn.Linear(width, 1, device="meta")
        assert oft_v2.side_of(point_at(layer), wanted, width, adjusts=True) == used
    point = point_at(torch.nn.Linear(320, 1, device="meta"))
    with pytest.raises(UserError, match="the 320 inputs of x cannot be divided into blocks of 48"):
        oft_v2.side_of(point, 48, 320, adjusts=False)
    assert boft.side_of(point, 6, 320, adjusts=True, factors=2) == 4
    with pytest.raises(UserError, match="blocks of 5 for 2 rotations"):
        boft.side_of(point, 5, 320, adjusts=False, factors=2)


@pytest.mark.parametrize("name", golden("boft"))
def test_the_numbers_of_boft_are_those_of_peft(name: str) -> None:
    entry = golden("boft")[name]
    tensors = {key: torch.tensor(entry[key]) for key in ("boft_R", "boft_s")}
    factors, _, side, _ = tensors["boft_R"].shape
    check_layer(entry, lambda point: boft.BOFTModule(point, factors, side), tensors)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_names_and_shapes_of_oft_v2_are_those_of_sd_scripts(
    full_size: Callable[[str], Model], family: str
) -> None:
    with torch.device("meta"):
        found = OFT.new(full_size(family), dim=None, alpha=None).tensors()
    reference = json.loads((DATA / f"{family}_lora_keys.json").read_text())
    layers = reference["base"] | reference["conv"]
    assert {key: tuple(value.shape) for key, value in found.items()} == {
        f"{name}.oft_R.weight": (into * kernel**2 // 32, 496)
        for name, (_, into, _, kernel, *_) in layers.items()
    }


@pytest.mark.parametrize("case", [OFT, BOFT], ids=["oft_v2", "boft"])
def test_a_lora_at_the_same_layer_is_rotated_too(case: Case) -> None:
    layer = torch.nn.Linear(8, 6)
    point = point_at(layer)
    rotation = boft.BOFTModule(point, 1, 4) if case is BOFT else oft_v2.OFTv2Module(point, (2, 4))
    addition = lora.LoRAModule(point, lora.Size(2, 1.0))
    for parameter in (*rotation.parameters(), *addition.parameters()):
        torch.nn.init.normal_(parameter, std=0.3)
    layer.requires_grad_(False)
    x = torch.randn(3, 8)
    for module in (rotation.eval(), addition.eval()):
        module.multiplier = 0.6
        module.attach()
    attached = layer(x)
    for module in (addition, rotation):
        module.merge()
    close(layer(x), attached)


def test_arguments_have_the_names_of_sd_scripts(tiny_model: Model) -> None:
    plain = OFT.new(tiny_model, dim=8, arguments={}).tensors()
    shapes = {key: value.shape for key, value in plain.items()}
    for name in ("block_size", "oft_block_size"):
        named = OFT.new(tiny_model, dim=None, arguments={name: "8"}).tensors()
        assert {key: value.shape for key, value in named.items()} == shapes
    halves = BOFT.new(tiny_model, arguments={"boft_block_num": "2"}).tensors()
    assert {value.shape[1] for key, value in halves.items() if "boft_R" in key} == {2}
    with pytest.raises(UserError, match="block_num: contradicts block_size"):
        boft.check_arguments({"block_size": "4", "boft_block_num": "2"})
    with pytest.raises(UserError, match="networks.oft_v2 has none: it has no alpha"):
        oft_v2.check_arguments({"conv_alpha": "4"})
    for arguments in ({"coft_eps": "nan"}, {"coft_eps": "-1"}, {"block_size": "0"}, {"dropout": "1"}):
        with pytest.raises(UserError, match=next(iter(arguments))):
            oft_v2.check_arguments({"coft": "true"} | arguments)
    network = OFT.new(tiny_model, dropout=0.25, arguments={"dropout": "0.5"})
    assert {module.block_dropout for module in network.by_name.values()} == {0.25}
