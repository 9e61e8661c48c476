import json
from pathlib import Path

import pytest
import torch
from commands import make_pictures, run_here
from kinds import make_kind
from network_contract import fill, outputs, point_at, predict
from torch.testing import assert_close
from trainers import options

from library.generation.command import load
from library.models import load_model
from library.models.base import Model
from library.models.saving import Saving
from library.models.weights import load_tensors, save_tensors
from library.network.hypernetwork_files import Structure, dropouts, read_hypernetwork
from library.network.loading import open_network
from library.network.network import Network
from library.options.generation import (
    GeneratorComputeOptions,
    GeneratorModelOptions,
    GeneratorNetworkOptions,
)
from library.problems import UserError
from networks import hypernetwork, lora

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "hypernetworks.json").read_text())


def new(model: Model, **changes) -> Network:
    settings = {
        "dim": None,
        "alpha": None,
        "dropout": None,
        "arguments": {},
        "parts": ("unet", "te"),
        "seed": 1,
    }
    return hypernetwork.create(model, **settings | changes)


def structure_of(entry: dict) -> Structure:
    return Structure(
        tuple(entry["layer_structure"]),
        entry["activation_func"] or "linear",
        entry["is_layer_norm"],
        entry["activate_output"],
        entry.get("dropout_structure"),
    )


def module_of(structure: Structure) -> hypernetwork.HypernetworkModule:
    return hypernetwork.HypernetworkModule(point_at(torch.nn.Linear(4, 3)), structure=structure)


@pytest.mark.parametrize("entry", GOLDEN["forward"], ids=lambda entry: entry["name"])
@torch.no_grad()
def test_its_numbers_are_those_of_other_programs(entry: dict) -> None:
    module = module_of(structure_of(entry))
    state = {name: torch.tensor(value) for name, value in entry["state"].items()}
    module.load_state_dict(state)
    module.multiplier = entry["multiplier"]
    x, y = torch.tensor(entry["x"]), torch.tensor(entry["y"])
    assert_close(module.change_input(x), y, rtol=1e-4, atol=1e-5)
    module.attach()
    assert_close(module.layer(x), torch.nn.functional.linear(y, module.layer.weight, module.layer.bias))


@torch.no_grad()
def test_activations_have_the_names_of_automatic1111() -> None:
    entry = GOLDEN["activations"]
    x = torch.tensor(entry["x"])
    for name, y in entry["y_by_activation"].items():
        module = module_of(Structure(activation_func=name))
        for parameter, value in zip(module.parameters(), entry["parameters"], strict=True):
            parameter.copy_(torch.tensor(value))
        module.multiplier = 0.7
        assert_close(module.change_input(x), torch.tensor(y), rtol=1e-4, atol=1e-5)


def test_layers_stand_at_the_places_that_files_name() -> None:
    for entry in GOLDEN["positions"]:
        found = {
            name: list(value.shape) for name, value in module_of(structure_of(entry)).state_dict().items()
        }
        assert found == entry["keys"]
    for structure, uses, last, wanted in GOLDEN["dropout"]:
        assert list(dropouts(structure, 0.3 if uses else 0.0, last=last)) == wanted


def test_a_new_one_changes_nothing_and_one_for_each_width_learns(any_model: Model) -> None:
    any_model.requires_grad_(False)
    before = outputs(any_model)
    network = new(any_model, arguments={"activation_func": "relu", "is_layer_norm": "true"}, dropout=0.1)
    network.attach()
    assert torch.equal(outputs(any_model), before)
    widths = {int(name.split("_")[0]) for name in network.by_name}
    layers = [point.module for module in network.by_name.values() for point in module.points]
    assert widths == {layer.weight.shape[1] for layer in layers}
    assert (
        len(layers)
        == len(set(layers))
        == 4 * sum(point.path.endswith(".attn1.to_k") for point in any_model.attach_points())
    )
    fill(network).train()
    predict(any_model).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert list(network.trained_parameters()) == [None]
    other = new(any_model, seed=2).tensors()
    assert not all(torch.equal(value, other[key]) for key, value in new(any_model).tensors().items())


@pytest.mark.parametrize("form", ["pt", "safetensors"])
def test_a_file_gives_the_same_network(tiny_model: Model, tmp_path: Path, form: str) -> None:
    arguments = {"layer_structure": "1,1.5,2,1", "activation_func": "swish", "activate_output": "yes"}
    network = fill(new(tiny_model, arguments=arguments, dropout=0.2)).eval()
    path = tmp_path / f"x.{form}"
    metadata = {"ss_steps": "7", "ss_output_name": "mine", "ss_sd_model_name": "base.safetensors"}
    network.save(path, Saving("pt", metadata=metadata))
    before = outputs(tiny_model)
    network.attach()
    expected = outputs(tiny_model)
    network.detach()
    assert not torch.equal(expected, before)
    for loaded in (hypernetwork.from_file(tiny_model, path), open_network(tiny_model, path)):
        loaded.attach()
        assert torch.equal(outputs(tiny_model), expected)
        loaded.set_multiplier(0)
        assert torch.equal(outputs(tiny_model), before)
        loaded.detach()
    assert read_hypernetwork(path)[1] == network.structure
    again = new(tiny_model, like=path, seed=3)
    again.load_file(path, tiny_model)
    assert all(torch.equal(value, network.tensors()[key]) for key, value in again.tensors().items())
    with pytest.raises(
        UserError, match=r"is built as 1,1.5,2,1 swish \(the last too\), this network as 1,2,1"
    ):
        new(tiny_model).load_file(path, tiny_model)
    with pytest.raises(UserError, match="for a hypernetwork give --network_module networks.hypernetwork"):
        lora.from_file(tiny_model, path)
    if form == "pt":
        content = torch.load(path, weights_only=True)
        assert {key for key in content if isinstance(key, int)} == {32, 64}
        assert all(len(content[width]) == 2 for width in (32, 64))
        settings = ("step", "name", "layer_structure", "activation_func", "activate_output", "use_dropout")
        assert [content[name] for name in settings] == [7, "mine", [1, 1.5, 2, 1], "swish", True, True]
        assert content["dropout_structure"] == [0, 0.2, 0.2, 0]


def test_the_files_of_novelai_and_old_ones_are_read(tiny_model: Model, tmp_path: Path) -> None:
    network = fill(new(tiny_model))
    nets: dict = {}
    for name, module in network.by_name.items():
        width = int(name.split("_")[0])
        state = {
            key.replace("linear.0", "linear1").replace("linear.1", "linear2"): value
            for key, value in module.state_dict().items()
        }
        nets.setdefault(width, []).append(state)
    torch.save({width: tuple(pair) for width, pair in nets.items()}, tmp_path / "nai.pt")
    loaded = hypernetwork.from_file(tiny_model, tmp_path / "nai.pt")
    assert all(torch.equal(value, network.tensors()[key]) for key, value in loaded.tensors().items())
    assert loaded.structure == Structure()  # AUTOMATIC1111 activates the output where a file says nothing


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": torch.zeros(1)}, "is no hypernetwork; it has e.g. x"),
        ({"name": "x"}, "is no hypernetwork: it holds no nets"),
        ({32: ({"linear.0.weight": torch.zeros(2, 2)},)}, "has one net of two for the width 32"),
        ({8: ({}, {})}, "is no hypernetwork: it holds no nets"),
        ({"layer_structure": [2, 1]}, "layer_structure is"),
        ({"layer_structure": [1, 9, 1]}, "asks for 288 values, its tensors have 64"),
        ({"activation_func": "sine"}, "its activation 'sine' is not known; there are linear"),
        ({"layer_structure": "[1, 2,"}, "its layer_structure is"),
        (
            {64: float("nan")},
            "holds values that are no numbers (NaN or infinite) in 1 of its tensors, e.g. 64.0.linear.0",
        ),
    ],
)
def test_what_is_none_or_damaged_is_refused(
    tiny_model: Model, tmp_path: Path, content: dict, message: str
) -> None:
    path = tmp_path / "x.pt"
    new(tiny_model).save(path, Saving("pt"))
    whole = torch.load(path, weights_only=True)
    if 64 in content:
        whole[64][0]["linear.0.weight"][0, 0] = content[64]
        content = whole
    elif not content.keys() & {"x", "name", 32, 8}:
        content = whole | content
    torch.save(content, path)
    with pytest.raises(UserError) as error:
        hypernetwork.from_file(tiny_model, path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_one_for_another_family_is_refused_and_spare_widths_are_left_out(
    tiny_model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.safetensors"
    fill(new(tiny_model)).save(path, Saving("safetensors"))
    tensors = load_tensors(path)
    spare = {key.replace("64.", "96.", 1): value for key, value in tensors.items() if key.startswith("64.")}
    grown = {key: torch.zeros([side * 3 // 2 for side in value.shape]) for key, value in spare.items()}
    save_tensors(path, tensors | grown)
    assert hypernetwork.from_file(tiny_model, path).by_name.keys() == new(tiny_model).by_name.keys()
    assert "its nets of width 96 are left out: the model has none" in capsys.readouterr().err
    save_tensors(path, grown)
    with pytest.raises(UserError, match=r"its widths 96 are none of this model's 32, 64; use a hypernetwork"):
        hypernetwork.from_file(tiny_model, path)


def test_arguments_are_checked(tiny_model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ({"conv_dim": "4"}, "networks.hypernetwork has none: its nets are shared by all blocks"),
        ({"activation_func": "sine"}, "expects one of linear, relu"),
        ({"layer_structure": "2,1"}, "of which the first and the last are 1"),
        ({"activation_func": "sigmoid", "activate_output": "1"}, "sigmoid of 0 is not 0"),
        ({"layer_structur": "1,2,1"}, "did you mean layer_structure"),
    ):
        with pytest.raises(UserError, match=message):
            hypernetwork.check_arguments(arguments)
    with pytest.raises(UserError, match="is for the U-Net only"):
        new(tiny_model, parts=("te",))
    new(tiny_model, dim=4, alpha=1.0)
    told = capsys.readouterr().err
    assert "--network_dim has no effect" in told and "--network_alpha has no effect" in told
    with pytest.raises(UserError, match="cannot be merged into the model: a hypernetwork changes what"):
        new(tiny_model).merge()
    with pytest.raises(UserError, match="--scale_weight_norms"):
        new(tiny_model).check_norms()


def test_a_lora_sees_what_the_hypernetwork_makes_of_its_input() -> None:
    model = make_kind("sd1")
    nets, addition = (
        fill(new(model)).eval(),
        fill(
            lora.create(model, dim=2, alpha=1.0, dropout=None, arguments={}, parts=("unet",), seed=1)
        ).eval(),
    )
    found = []
    for order in ((nets, addition), (addition, nets)):
        for network in order:
            network.attach()
        found.append(outputs(model))
        for network in order:
            network.detach()
    assert_close(found[0], found[1])


def test_it_is_trained_resumed_and_drawn_with(tiny_model_file: Path, tmp_path: Path) -> None:
    make_pictures(tmp_path / "data" / "1_sks", 4)

    def train(out: str, steps: int, *more: object) -> Path:
        network = ("--network_module", "networks.hypernetwork", "--network_dropout", 0.1)
        asked = (
            "--network_args",
            "layer_structure=1,2,2,1",
            "activation_func=relu",
            "--max_train_steps",
            steps,
        )
        run_here(
            "train_network.py",
            *options(tiny_model_file, tmp_path / "data", tmp_path / out, *network, *asked, *more),
        )
        return tmp_path / out / "x.pt"

    path = train("out", 3, "--save_state")
    first = train("first", 1, "--save_state")
    again = train("again", 3, "--resume", first.parent / "x-state")
    resumed, whole = load_tensors(again), load_tensors(path)
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[key], value) for key, value in whole.items())
    assert all(tensor.any() for key, tensor in whole.items() if key.endswith("weight"))
    networks = GeneratorNetworkOptions(network_module=("networks.hypernetwork",), network_weights=(path,))
    drawn, _ = load(GeneratorModelOptions(ckpt=str(tiny_model_file)), GeneratorComputeOptions(), networks)
    drawn.float()
    alone = load_model(tiny_model_file)
    assert not torch.equal(outputs(alone), outputs(drawn))
