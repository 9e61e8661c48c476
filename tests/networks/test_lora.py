import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from library.models.base import Model
from library.models.weights import load_tensors, save_tensors
from library.problems import UserError
from networks import lora

BATCH = 2
SD1_KEYS = Path(__file__).parents[1] / "data" / "sd1_lora_keys.json"


def new_lora(model: Model, **changes) -> lora.Network:
    settings = {
        "dim": 4,
        "alpha": 2.0,
        "dropout": None,
        "arguments": {"conv_dim": "2"},
        "parts": ("unet", "te"),
    }
    return lora.create(model, **settings | {"seed": 1} | changes)


def filled(network: lora.Network) -> lora.Network:
    """The network as after some training: no tensor is zero."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return network


@torch.no_grad()
def outputs(model: Model) -> torch.Tensor:
    """What the model predicts for a fixed input and caption."""
    model.eval()
    tokens = model.tokenizer(75)(["one, two", "three"])
    x = torch.randn((BATCH, 4, 8, 8), generator=torch.Generator().manual_seed(2))
    return model.predict(x, torch.tensor([10, 900]), model.encode_text(tokens))


def test_a_new_lora_changes_nothing(tiny_model: Model) -> None:
    before = outputs(tiny_model)
    new_lora(tiny_model).attach()
    assert torch.equal(outputs(tiny_model), before)


def test_an_attached_lora_equals_a_merged_one(tiny_model: Model) -> None:
    before = outputs(tiny_model)
    network = filled(new_lora(tiny_model)).eval()
    network.attach()
    network.set_multiplier(0.7)
    attached = outputs(tiny_model)
    network.merge()
    merged = outputs(tiny_model)
    assert (attached - before).abs().max() > 0.01
    assert_close(merged, attached, rtol=1e-4, atol=1e-5)


def test_a_multiplier_of_zero_and_detaching_turn_it_off(tiny_model: Model) -> None:
    before = outputs(tiny_model)
    network = filled(new_lora(tiny_model)).eval()
    network.attach()
    network.set_multiplier(0.0)
    assert_close(outputs(tiny_model), before)
    network.set_multiplier(1.0)
    network.detach()
    assert torch.equal(outputs(tiny_model), before)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".ckpt"])
def test_saving_and_loading_gives_the_same_network(tiny_model: Model, tmp_path: Path, suffix: str) -> None:
    network = filled(new_lora(tiny_model)).eval()
    path = tmp_path / f"x{suffix}"
    network.save(path, dtype=None, metadata={"ss_network_dim": "4"})
    loaded = lora.from_file(tiny_model, path)
    assert network.tensors().keys() == loaded.tensors().keys()
    network.attach()
    expected = outputs(tiny_model)
    network.detach()
    loaded.attach()
    assert torch.equal(outputs(tiny_model), expected)


def test_the_saved_precision_is_that_of_every_tensor(tiny_model: Model, tmp_path: Path) -> None:
    new_lora(tiny_model).save(tmp_path / "x.safetensors", dtype=torch.bfloat16, metadata=None)
    assert {tensor.dtype for tensor in load_tensors(tmp_path / "x.safetensors").values()} == {torch.bfloat16}


def test_a_missing_alpha_means_scale_one(tiny_model: Model, tmp_path: Path) -> None:
    network = filled(new_lora(tiny_model, alpha=4.0, arguments={}))
    without = {key: value for key, value in network.tensors().items() if not key.endswith("alpha")}
    save_tensors(tmp_path / "x.safetensors", without)
    assert {
        module.scale for module in lora.from_file(tiny_model, tmp_path / "x.safetensors").by_name.values()
    } == {1.0}


def test_one_by_one_convolutions_may_be_stored_as_matrices(tiny_model: Model, tmp_path: Path) -> None:
    network = filled(new_lora(tiny_model, arguments={}))
    flat = {key: value.flatten(1) if value.ndim == 4 else value for key, value in network.tensors().items()}
    save_tensors(tmp_path / "x.safetensors", flat)
    loaded = lora.from_file(tiny_model, tmp_path / "x.safetensors").tensors()
    assert all(torch.equal(loaded[key], value) for key, value in network.tensors().items())


def test_initial_values_depend_on_the_seed_and_the_name_alone(tiny_model: Model) -> None:
    both, unet = new_lora(tiny_model), new_lora(tiny_model, parts=("unet",), arguments={})
    assert all(torch.equal(both.tensors()[key], value) for key, value in unet.tensors().items())
    key = "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"
    assert not torch.equal(new_lora(tiny_model, seed=2).tensors()[key], both.tensors()[key])


@pytest.mark.parametrize(("arguments", "name"), [({}, "base"), ({"conv_dim": "8"}, "conv")])
def test_names_and_shapes_of_a_full_size_model_equal_the_reference(
    full_size_sd1: Model, arguments: dict, name: str
) -> None:
    reference = json.loads(SD1_KEYS.read_text())
    entries = reference["base"] | (reference["conv"] if name == "conv" else {})
    with torch.device("meta"):
        found = {
            key: tuple(value.shape)
            for key, value in new_lora(full_size_sd1, dim=16, arguments=arguments).tensors().items()
        }
    expected = {}
    for module, (kind, wide_in, wide_out, side, *_) in entries.items():
        rank = 8 if kind == "C3" else 16
        kernel = {"L": (), "C1": (1, 1), "C3": (side, side)}[kind]
        expected[f"{module}.lora_down.weight"] = (rank, wide_in, *kernel)
        expected[f"{module}.lora_up.weight"] = (wide_out, rank, *(1 for _ in kernel))
        expected[f"{module}.alpha"] = ()
    assert found == expected


def test_a_linear_lora_after_a_convolution_one_has_no_convolution_targets(tiny_model: Model) -> None:
    plain = new_lora(tiny_model, arguments={}).tensors().keys()
    new_lora(tiny_model, arguments={"conv_dim": "2"})
    assert new_lora(tiny_model, arguments={}).tensors().keys() == plain


def test_dropout_acts_in_training_only_and_keeps_the_mean(tiny_model: Model) -> None:
    layer = torch.nn.Linear(8, 8, bias=False)
    module = lora.LoRAModule(layer, 4, 4.0)
    module.initialize(torch.Generator().manual_seed(0))
    torch.nn.init.normal_(module.lora_up.weight)
    module.rank_dropout = 0.5
    x, zero = torch.ones(4000, 3, 8), torch.zeros(4000, 3, 8)
    exact = module.eval().add_to(zero, x)[0, 0]
    torch.manual_seed(0)
    dropped = module.train().add_to(zero, x)
    assert torch.equal(dropped[:, 0], dropped[:, 2])  # a rank is dropped for a whole sample
    assert_close(dropped.mean(dim=(0, 1)), exact, rtol=0.1, atol=0.1)
    assert not torch.equal(dropped[0], dropped[1])
    module.rank_dropout, module.module_dropout = 0.0, 1.0 - 1e-9
    assert module.add_to(zero, x).count_nonzero() == 0


def test_unknown_arguments_are_all_named() -> None:
    with pytest.raises(UserError) as error:
        lora.check_arguments({"conv_dmi": "4", "block_dims": "1", "conv_dim": "0", "rank_dropout": "2"})
    assert [str(problem) for problem in error.value.problems] == [
        "--network_args conv_dmi: networks.lora has no such argument; did you mean conv_dim?",
        "--network_args block_dims: is not available yet; remove it",
        "--network_args conv_dim: expects a whole number of 1 or more, got '0'",
        "--network_args rank_dropout: expects a probability below 1, got '2'",
    ]


def test_weights_of_another_rank_or_model_are_refused(tiny_model: Model, tmp_path: Path) -> None:
    network = new_lora(tiny_model, dim=2)
    with pytest.raises(UserError, match="its rank is 4"):
        network.load_tensors(new_lora(tiny_model, dim=4).tensors(), "a.safetensors")
    foreign = {f"lora_unet_nowhere.lora_{half}.weight": torch.zeros(2, 2) for half in ("down", "up")}
    save_tensors(tmp_path / "a.safetensors", foreign)
    with pytest.raises(UserError, match="have no place in this model, e.g. lora_unet_nowhere"):
        lora.from_file(tiny_model, tmp_path / "a.safetensors")
    save_tensors(tmp_path / "b.safetensors", {"lora_unet_x.lora_down.weight": torch.zeros(2, 2)})
    with pytest.raises(UserError, match="1 tensors are missing, e.g. lora_unet_x.lora_up.weight"):
        lora.from_file(tiny_model, tmp_path / "b.safetensors")
