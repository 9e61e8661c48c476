import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from kinds import make_kind
from network_contract import CHECKS, Case, Check, fill, outputs, point_at, predict
from torch import nn
from torch.testing import assert_close

from library.models.base import Model
from library.models.saving import Saving
from library.models.weights import load_tensors, save_tensors
from library.network.files import read_network
from library.network.loading import check_network_file, open_network
from library.network_tools.changes import open_changes
from library.network_tools.conversion import convert
from library.network_tools.readers import readings
from library.problems import UserError
from networks import control_net_lllite, lora
from networks.control_net_lllite import KERNELS, LLLiteModule

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "lllite.json").read_text())
CASE = Case(control_net_lllite, "lllite", {"cond_emb_dim": "8"}, {"cond_emb_dim": "8"}, parts=("unet",))
# What is only about kinds that change weights, know nothing of pictures, or stand in every part of a model.
NOT_OF_IT = (
    "the_multiplier_goes_from_off_to_full",
    "first_values_depend_on_the_seed_and_the_name_alone",
    "norms_are_limited",
)
OWN_CHECKS = [check for check in CHECKS if check.__name__.removeprefix("check_") not in NOT_OF_IT]


@pytest.mark.parametrize("check", OWN_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_it_keeps_the_contract(check: Check, any_model: Model, tmp_path: Path) -> None:
    check(CASE, any_model, tmp_path)


@pytest.mark.parametrize("entry", GOLDEN["forward"], ids=lambda entry: f"depth {entry['depth']}")
@torch.no_grad()
def test_its_numbers_are_those_of_other_programs(entry: dict) -> None:
    layer = nn.Linear(6, 5)
    layer.weight.data, layer.bias.data = torch.tensor(entry["base_W"]), torch.tensor(entry["base_b"])
    widths = {"dim": entry["network_dim"], "cond_emb_dim": entry["cond_emb_dim"]}
    module = LLLiteModule(point_at(layer), depth=entry["depth"], **widths).eval()
    assert {name: list(value.shape) for name, value in module.state_dict().items()} == entry["shapes"]
    drawn = {name: _drawn(shape, 1610 + k, 0.3) for k, (name, shape) in enumerate(entry["shapes"].items())}
    module.load_state_dict(drawn)
    for name, values in entry["params_small"].items():
        assert torch.equal(drawn[name], torch.tensor(values))
    side = entry["image_hw"]
    module.hint = (_drawn((1, 3, side, side), 1650).clamp(-1, 1) + 1) / 2
    module.multiplier = entry["multiplier"]
    module.attach()
    x, y = torch.tensor(entry["x"]), torch.tensor(entry["y"])
    assert_close(layer(x), y, rtol=1e-4, atol=1e-5)
    assert_close(module._seen[1][0], torch.tensor(entry["cond_emb"]), rtol=1e-4, atol=1e-5)


def _drawn(shape: list[int] | tuple[int, ...], seed: int, size: float = 1.0) -> torch.Tensor:
    values = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) * size
    return torch.round(values, decimals=3)


def test_names_and_shapes_of_full_size_models_equal_the_reference(
    full_size: Callable[[str], Model],
) -> None:
    with torch.device("meta"):
        xl = _new(full_size("sdxl"))
        found = {family: _new(full_size(family)) for family in ("sd1", "sd2")}
    expected = {
        f"{name}.{tensor}": tuple(shape)
        for entry in GOLDEN["sdxl"].values()
        for name in entry["names"]
        for tensor, shape in entry["shapes"].items()
    }
    assert len(xl.by_name) == 136 and len(expected) == 1600
    assert {key: tuple(value.shape) for key, value in xl.tensors().items()} == expected
    for network in found.values():  # the middle works at a sixty-fourth, which no depth has
        rows = [[name, one.depth, one.layer.weight.shape[1]] for name, one in network.by_name.items()]
        assert sorted(rows) == sorted(GOLDEN["sd1"])


def _new(model: Model, **changes):
    settings = {"dim": None, "alpha": None, "dropout": None, "arguments": {}, "parts": ("unet",), "seed": 1}
    return control_net_lllite.create(model, **settings | changes)


def test_the_depth_is_that_of_the_layer_and_not_of_its_blocks_number(tiny_model: Model) -> None:
    network = _new(tiny_model)  # one layer a block: input_blocks.1, 3, 5
    depths = {name.split("transformer")[0]: module.depth for name, module in network.by_name.items()}
    levels = tiny_model.denoiser.config.down_block_types
    attended = [level for level, kind in enumerate(levels) if "CrossAttn" in kind]
    wanted = {f"lllite_unet_input_blocks_{2 * level + 1}_1_": level + 1 for level in attended if level < 3}
    assert wanted.items() <= depths.items()
    assert set(depths.values()) <= set(KERNELS)


@torch.no_grad()
def test_a_new_one_depends_on_the_seed_and_the_name_alone_and_up_is_zero(tiny_model: Model) -> None:
    first, again, other = (_new(tiny_model, seed=seed).tensors() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], value) for key, value in again.items())
    zeros = {key for key, value in first.items() if not value.any()}
    assert zeros == {key for key in first if ".up.0." in key}
    assert not any(torch.equal(first[key], value) for key, value in other.items() if key not in zeros)


@torch.no_grad()
def test_the_picture_is_looked_at_once_and_another_one_anew(tiny_model: Model) -> None:
    network = fill(_new(tiny_model)).eval()
    network.attach()
    calls: list[int] = []
    module = next(iter(network.by_name.values()))
    at_places = module._at_places
    module._at_places = lambda *given: calls.append(1) or at_places(*given)
    tiny_model.eval()
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([10, 10])
    condition = tiny_model.encode_text(tiny_model.tokenizer(75)(["a", "b"]))
    one, two = (replace(condition, hint=torch.rand(2, 3, 64, 64)) for _ in range(2))
    first = tiny_model.predict(x, t, one)
    assert torch.equal(tiny_model.predict(x, t, one), first) and len(calls) == 1
    assert not torch.equal(tiny_model.predict(x, t, two), first) and len(calls) == 2
    network.train()
    network.eval()  # weights may be others by now
    tiny_model.predict(x, t, two)
    assert len(calls) == 3
    plain = tiny_model.predict(x, t, condition)  # without a picture it does nothing
    network.detach()
    assert torch.equal(tiny_model.predict(x, t, condition), plain)


@torch.no_grad()
def test_each_of_several_has_its_own_picture_until_its_ratio(tiny_model: Model) -> None:
    networks = [fill(_new(tiny_model, seed=seed)).eval() for seed in (1, 2)]
    for place, network in enumerate(networks):
        network.place, network.ratio = place, (1.0, 0.5)[place]
        network.attach()
    condition = tiny_model.eval().encode_text(tiny_model.tokenizer(75)(["a"]))
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([5])
    one, other, third = (torch.rand(1, 3, 64, 64) for _ in range(3))

    def predict_with(*pictures: torch.Tensor, progress: float = 0.0) -> torch.Tensor:
        told = replace(condition, hint=torch.cat(pictures, dim=1), progress=progress)
        return tiny_model.predict(x, t, told)

    both = predict_with(one, other)
    assert not torch.equal(predict_with(one, third), both) and not torch.equal(
        predict_with(third, other), both
    )
    late = predict_with(one, other, progress=0.5)
    assert torch.equal(predict_with(one, third, progress=0.5), late) and not torch.equal(late, both)
    assert torch.equal(predict_with(one, progress=0.2), predict_with(one, one, progress=0.2))
    networks[1].detach()
    assert torch.equal(predict_with(one, other), late)


@torch.no_grad()
@pytest.mark.parametrize("height, width", [(9, 8), (7, 13)])
def test_sides_that_no_stride_divides_are_drawn_too(tiny_model: Model, height: int, width: int) -> None:
    network = fill(_new(tiny_model)).eval()
    network.attach()
    condition = tiny_model.eval().encode_text(tiny_model.tokenizer(75)(["a"]))
    x = torch.randn(1, 4, height, width)
    hints = [torch.rand(1, 3, 8 * height, 8 * width) for _ in range(2)]
    first, other = (tiny_model.predict(x, torch.tensor([5]), replace(condition, hint=hint)) for hint in hints)
    assert torch.isfinite(first).all() and not torch.equal(first, other)


def test_dropout_acts_in_training_alone(tiny_model: Model) -> None:
    network = fill(_new(tiny_model, dropout=0.5))
    network.attach()
    tiny_model.eval()
    network.train()
    assert not torch.equal(predict(tiny_model), predict(tiny_model))
    network.eval()
    assert torch.equal(predict(tiny_model), predict(tiny_model))


@torch.no_grad()
def test_it_computes_in_the_type_of_the_model(tiny_model: Model) -> None:
    network = fill(_new(tiny_model)).eval()
    network.attach()
    whole = outputs(tiny_model)
    tiny_model.denoiser.to(torch.bfloat16)
    network.cast_for_step(torch.bfloat16)
    half = outputs(tiny_model)
    network.forget_casts()
    assert_close(half.float(), whole, rtol=0.1, atol=0.1)
    assert half.dtype == torch.bfloat16


def test_files_of_other_families_and_kinds_are_refused(tmp_path: Path) -> None:
    sd1, xl = make_kind("sd1"), make_kind("sdxl")
    for own, other in ((sd1, xl), (xl, sd1)):
        network, path = _new(own), tmp_path / "x.safetensors"
        network.save(path, Saving("safetensors"))
        assert open_network(own, path).by_name.keys() == network.by_name.keys()
        with pytest.raises(UserError, match="of its tensors have no place in this model, e.g. lllite_unet_"):
            open_network(other, path)
        with pytest.raises(UserError, match="holds no LoRA weights"):
            lora.from_file(own, path)
    tensors = load_tensors(path)
    key = next(key for key in tensors if key.endswith("down.0.weight"))
    for changed, message in (
        (torch.zeros(4, 5), r"down.0.weight of .* is \(4, 5\), which does not fit"),
        (None, "1 tensors are missing, e.g. "),
    ):
        others = {name: value for name, value in tensors.items() if name != key}
        save_tensors(path, others if changed is None else others | {key: changed})
        with pytest.raises(UserError, match=message):
            open_network(xl, path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cond_emb_dim": "3"}, "cond_emb_dim: expects an even number of 2 or more, got '3'"),
        ({"cond_emb_dim": "many"}, "cond_emb_dim: expects an even number"),
        ({"conv_dim": "4"}, "conv_dim: networks.control_net_lllite has none"),
        ({"cond_emb": "4"}, "did you mean cond_emb_dim"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        control_net_lllite.check_arguments(arguments)


def test_the_tools_say_what_it_is_and_that_it_stays_as_it_is(tiny_model: Model, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    metadata = {"modelspec.architecture": "stable-diffusion-v1/control-net-lllite"}
    network = fill(_new(tiny_model))
    network.save(path, Saving("safetensors", metadata=metadata))
    found = read_network(path)
    assert found.modules.keys() == network.by_name.keys() and found.told is not None
    read = {program: reading.degree for program, reading in readings(found).items()}
    no = {"diffusers", "lycoris"}
    assert read == {program: "no" if program in no else "whole" for program in read}
    programs = ("comfyui", "kohya", "a1111", "diffusers", "lycoris")
    for say, message in (
        *((partial(convert, found, program), "read it as it is") for program in programs),
        (partial(open_changes, path), "which is no change of weights: it depends on a picture"),
        (partial(check_network_file, path), "draw with it by --control_net_lllite_models"),
        (network.merge, "depends on a picture, which no weight can hold"),
    ):
        with pytest.raises(UserError, match=message):
            say()
