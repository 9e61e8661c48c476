import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kinds import make_kind
from network_contract import CHECKS, Case, Check, fill, outputs, point_at, predict
from torch.testing import assert_close

from library.models import load_model
from library.models.base import Model
from library.models.saving import Saving
from library.models.weights import load_tensors, open_tensors, save_tensors
from library.network.names import module_name
from library.network.network import Network
from library.network.sizes import Size
from library.problems import UserError
from networks import lora

DATA = Path(__file__).parents[1] / "data"
LORA = Case(lora, "lora", {"conv_dim": "2"})


def new_lora(model: Model, **changes) -> Network:
    return LORA.new(model, **changes)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_a_lora_keeps_the_contract(check: Check, any_model: Model, tmp_path: Path) -> None:
    check(LORA, any_model, tmp_path)


def test_an_sdxl_lora_with_the_names_of_diffusers_is_the_same(tmp_path: Path) -> None:
    model = make_kind("sdxl")
    network = fill(new_lora(model))
    others = {module_name(point): point.other_path for point in model.attach_points() if point.other_path}
    assert others["lora_unet_input_blocks_4_1_proj_in"] == "down_blocks.1.attentions.0.proj_in"
    assert others["lora_unet_output_blocks_2_2_conv"] == "up_blocks.0.upsamplers.0.conv"
    tensors = {}
    for key, tensor in network.tensors().items():
        name, _, rest = key.partition(".")
        other = others.get(name)
        tensors[f"lora_unet_{other.replace('.', '_')}.{rest}" if other else key] = tensor
    assert sum(key.startswith("lora_unet_down_blocks") for key in tensors) > 50
    save_tensors(tmp_path / "x.safetensors", tensors)
    loaded = lora.from_file(model, tmp_path / "x.safetensors").tensors()
    assert loaded.keys() == network.tensors().keys()
    assert all(torch.equal(loaded[key], value) for key, value in network.tensors().items())


@pytest.mark.parametrize("is_linear", [True, False])
def test_an_sd_2_lora_fits_matrices_and_convolutions(tmp_path: Path, saved_kind, is_linear: bool) -> None:
    """Trained beside one kind of projection layers, used beside the other."""
    source = saved_kind("sd2", "safetensors")
    tensors, metadata = load_tensors(source), open_tensors(source).metadata
    ends = (".proj_in.weight", ".proj_out.weight")
    convolved = {
        name: t[:, :, None, None] if name.endswith(ends) and t.ndim == 2 else t for name, t in tensors.items()
    }
    save_tensors(tmp_path / "conv.safetensors", convolved, metadata)
    paths = [source, tmp_path / "conv.safetensors"]
    one, other = (load_model(path) for path in (paths if is_linear else paths[::-1]))
    network = fill(new_lora(one)).eval()
    network.save(tmp_path / "x.safetensors", Saving("safetensors"))
    network.attach()
    lora.from_file(other, tmp_path / "x.safetensors").attach()
    assert_close(outputs(other), outputs(one), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["safetensors", "diffusers_safetensors"])
def test_an_sd_2_lora_has_four_sides_where_a_trainer_of_its_source_expects_them(
    tmp_path: Path, saved_kind, form: str
) -> None:
    """sd-scripts makes the projections of a single file convolutions, and those of a folder matrices."""
    model = load_model(saved_kind("sd2", form))
    network = fill(new_lora(model, arguments={}))
    network.save(tmp_path / "x.safetensors", Saving("safetensors"))
    saved, own = load_tensors(tmp_path / "x.safetensors"), network.tensors()
    sides = {key: tensor.ndim for key, tensor in saved.items() if not key.endswith(".alpha")}
    projections = {key for key in sides if "_proj_in." in key or "_proj_out." in key}
    text_ends = {key for key in projections if key.startswith("lora_te_")}
    assert projections - text_ends
    wanted = projections - text_ends if form == "safetensors" else set()
    assert {key for key, count in sides.items() if count == 4} == wanted
    assert all(torch.equal(saved[key].reshape(tensor.shape), tensor) for key, tensor in own.items())
    again = lora.from_file(model, tmp_path / "x.safetensors").tensors()
    assert all(torch.equal(again[key], tensor) for key, tensor in own.items())


def test_layers_that_count_for_nothing_are_not_trained(any_model: Model) -> None:
    network = new_lora(any_model)
    network.freeze_idle(any_model, clip_skip=2)
    frozen = {
        n for n, module in network.by_name.items() if not any(p.requires_grad for p in module.parameters())
    }
    prefix = "te1" if any_model.family == "sdxl" else "te"
    beginning = f"lora_{prefix}_text_model_encoder_layers_1_"
    assert frozen == {name for name in network.by_name if name.startswith(beginning)}
    network.attach()
    predict(any_model.train(), clip_skip=2).sum().backward()
    without = {n for n, m in network.by_name.items() if m.lora_up.weight.grad is None}
    assert without == frozen


def test_one_by_one_convolutions_may_be_stored_as_matrices(tiny_model: Model, tmp_path: Path) -> None:
    network = fill(new_lora(tiny_model, arguments={}))
    flat = {key: value.flatten(1) if value.ndim == 4 else value for key, value in network.tensors().items()}
    save_tensors(tmp_path / "x.safetensors", flat)
    loaded = lora.from_file(tiny_model, tmp_path / "x.safetensors").tensors()
    assert all(torch.equal(loaded[key], value) for key, value in network.tensors().items())


@pytest.mark.parametrize("arguments", [{}, {"conv_dim": "8"}], ids=["base", "conv"])
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_names_and_shapes_of_a_full_size_model_equal_the_reference(
    full_size: Callable[[str], Model], family: str, arguments: dict
) -> None:
    reference = json.loads((DATA / f"{family}_lora_keys.json").read_text())
    entries = reference["base"] | (reference["conv"] if arguments else {})
    with torch.device("meta"):
        found = {
            key: tuple(value.shape)
            for key, value in new_lora(full_size(family), dim=16, arguments=arguments).tensors().items()
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
    module = lora.LoRAModule(point_at(layer), Size(4, 4.0))
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
    assert module.change(zero, x).count_nonzero() == 0


def test_weights_of_another_rank_or_model_are_refused(tiny_model: Model, tmp_path: Path) -> None:
    network = new_lora(tiny_model, dim=2)
    with pytest.raises(
        UserError, match="its rank is 4: give that, .*or resize it: python networks/resize_"
    ) as error:
        network.load_tensors(new_lora(tiny_model, dim=4).tensors(), "a.safetensors")
    assert "--model a.safetensors --new_rank 2 --save_to FILE" in str(error.value)
    foreign = {f"lora_unet_nowhere.lora_{half}.weight": torch.zeros(2, 2) for half in ("down", "up")}
    save_tensors(tmp_path / "a.safetensors", foreign)
    with pytest.raises(UserError, match="have no place in this model, e.g. lora_unet_nowhere"):
        lora.from_file(tiny_model, tmp_path / "a.safetensors")
    save_tensors(tmp_path / "b.safetensors", {"lora_unet_x.lora_down.weight": torch.zeros(2, 2)})
    with pytest.raises(UserError, match="1 tensors are missing, e.g. lora_unet_x.lora_up.weight"):
        lora.from_file(tiny_model, tmp_path / "b.safetensors")
