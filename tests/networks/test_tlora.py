"""T-LoRA, which LyCORIS trains: its files are drawn with and merged."""

from pathlib import Path

import pytest
import torch
from commands import call
from golden_layers import check_layer, golden
from network_contract import outputs
from torch import nn
from torch.testing import assert_close

from library.models.base import Model
from library.models.weights import load_tensors, save_tensors
from library.network.loading import load_network_module, open_network
from library.network.names import module_name
from library.network.sizes import Size
from library.problems import UserError
from networks import resize_lora
from networks.tlora import TLoRAModule, check_arguments, largest_part

RANK, ALPHA = 3, 1.5


def write(model: Model, path: Path) -> Path:
    """What LyCORIS writes of a T-LoRA for the attention and its projections."""
    generator = torch.Generator().manual_seed(5)
    tensors = {}
    for point in model.attach_points():
        name, weight = module_name(point), point.module.weight
        if "attn1" not in name and not name.endswith(("proj_in", "proj_out")):
            continue
        up, down = largest_part(weight.float().flatten(1), RANK)
        scales = down.norm(dim=1)
        down = down / scales[:, None]
        sides = (1, 1) if weight.ndim == 4 else ()
        for key, value in (("p_layer.weight", up), ("q_layer.weight", down), ("lambda_layer", scales[None])):
            changed = value + torch.randn(value.shape, generator=generator) * 0.1
            tensors[f"{name}.{key}"] = changed if "lambda" in key else changed.reshape(*value.shape, *sides)
        tensors[f"{name}.alpha"] = torch.tensor(ALPHA)
    save_tensors(path, tensors)
    return path


def test_its_numbers_are_those_of_lycoris() -> None:
    entry = golden("tlora")["linear"]
    tensors = {key: torch.tensor(value) for key, value in entry["tensors"].items()}
    check_layer(entry, lambda point: TLoRAModule(point, Size(RANK, ALPHA)), tensors)


@pytest.mark.parametrize("sides", [(7, 12), (12, 7), (6, 6)])
def test_the_largest_part_is_that_of_the_singular_values(sides: tuple[int, int]) -> None:
    matrix = torch.randn(sides, generator=torch.Generator().manual_seed(1))
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    up, down = largest_part(matrix, 4)
    assert (up.shape, down.shape) == ((sides[0], 4), (4, sides[1]))
    assert_close(up @ down, (u[:, :4] * s[:4] @ v[:4]).float(), rtol=0, atol=1e-5)


def test_a_file_is_drawn_with_and_merged(any_model: Model, tmp_path: Path) -> None:
    path = write(any_model, tmp_path / "x.safetensors")
    plain = outputs(any_model)
    network = open_network(any_model, path)
    network.attach()
    network.set_multiplier(0.5)
    half = outputs(any_model)
    assert (half - plain).abs().max() > 1e-3
    network.set_multiplier(0)
    assert_close(outputs(any_model), plain)
    network.detach()
    network.set_multiplier(0.5)
    network.merge()
    assert_close(outputs(any_model), half, rtol=1e-4, atol=1e-5)


def test_with_its_model_it_becomes_a_lora(shallow_model_file: Path, tmp_path: Path) -> None:
    from library.models import load_model

    model = load_model(str(shallow_model_file))
    path, made = write(model, tmp_path / "x.safetensors"), tmp_path / "lora.safetensors"
    words = ("--base_model", shallow_model_file, "--new_rank", 2 * RANK, "--save_precision", "float")
    call(resize_lora.main, "networks/resize_lora.py", "--model", path, "--save_to", made, *words)
    found = []
    for one in (path, made):
        network = open_network(model, one)
        network.attach()
        found.append(outputs(model))
        network.detach()
    assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)
    assert any(key.endswith("lora_down.weight") for key in load_tensors(made))


def test_lycoris_reads_what_it_wrote_as_we_do(tmp_path: Path) -> None:
    lycoris = pytest.importorskip("lycoris")
    net = nn.Sequential(nn.Linear(6, 8))
    tensors = {
        "q_layer.weight": torch.randn(RANK, 6),
        "p_layer.weight": torch.randn(8, RANK),
        "lambda_layer": torch.rand(1, RANK),
        "alpha": torch.tensor(ALPHA),
    }
    from network_contract import point_at

    module = TLoRAModule(point_at(net[0]), Size(RANK, ALPHA))
    module.load_state_dict(tensors)
    module.took_values()
    x = torch.randn(2, 6)
    module.attach()
    own = net(x)
    module.detach()
    weights = {f"lycoris_0.{key}": value for key, value in tensors.items()}
    theirs, _ = lycoris.create_lycoris_from_weights(1.0, None, net, weights_sd=weights)
    theirs.apply_to()
    assert_close(net(x), own, rtol=1e-4, atol=1e-5)


def test_it_is_not_trained_here() -> None:
    with pytest.raises(UserError, match="opens files, and trains none; use LyCORIS itself"):
        check_arguments({})
    assert load_network_module("networks.tlora")
