from pathlib import Path

import pytest
import torch
from golden_layers import check_layer, golden, layer_of
from network_contract import CHECKS, Case, Check, outputs, point_at
from torch.testing import assert_close

from library.models.base import Model
from library.models.weights import save_tensors
from library.network.sizes import Size
from library.problems import UserError
from networks import boft, diag_oft, glora, ia3

IA3 = Case(ia3, "ia3", draws=False)
GLORA = Case(glora, "glora", {"conv_dim": "2"})


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_an_ia3_keeps_the_contract(check: Check, any_model: Model, tmp_path: Path) -> None:
    check(IA3, any_model, tmp_path)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_a_glora_keeps_the_contract(check: Check, any_model: Model, tmp_path: Path) -> None:
    check(GLORA, any_model, tmp_path)


@pytest.mark.parametrize("name", golden("ia3"))
def test_the_numbers_of_ia3_are_those_of_lycoris(name: str) -> None:
    entry = golden("ia3")[name]
    weight, on_input = torch.tensor(entry["tensors"]["weight"]), entry["on_input"]
    tensors = {"weight": weight, "on_input": torch.tensor(int(on_input))}
    check_layer(entry, lambda point: ia3.IA3Module(point, tuple(weight.shape)), tensors)


@pytest.mark.parametrize("name", golden("peft_ia3"))
def test_an_ia3_of_peft_is_read(name: str) -> None:
    """peft_ia3: what PEFT merged for a linear layer and for convolutions of 3x3 and 1x1."""
    entry = golden("peft_ia3")[name]
    factors, layer = torch.tensor(entry["ia3_l"]), layer_of(entry)
    for path, given in (("x", factors), ("mid.ff.net.2", factors)):
        module = ia3.module_of_file(point_at(layer, path=path), {"ia3_l": tuple(given.shape)})
        module.load_state_dict(module.from_file_tensors({"ia3_l": given}))
        module.took_values()
        assert_close(layer.weight + module.delta_weight(), torch.tensor(entry["W_eff"]), rtol=1e-4, atol=1e-5)


def test_which_way_peft_scales_is_told_by_the_shape(tiny_model: Model, tmp_path: Path) -> None:
    point = point_at(torch.nn.Linear(6, 4))
    assert ia3.module_of_file(point, {"ia3_l": (1, 6)}).stands == "before"
    assert ia3.module_of_file(point, {"ia3_l": (4, 1)}).stands == "after"
    with pytest.raises(UserError, match=r"ia3_l of x is \(1, 4\), which does not fit"):
        ia3.module_of_file(point, {"ia3_l": (1, 4)})
    square = point_at(torch.nn.Conv2d(4, 4, 1))
    with pytest.raises(UserError, match="may be factors of what the convolution is given or gives"):
        ia3.module_of_file(square, {"ia3_l": (1, 4, 1, 1)})
    network = IA3.filled(tiny_model).eval()
    network.attach()
    expected = outputs(tiny_model)
    network.detach()
    peft = {}
    for module in network.by_name.values():
        factors = module.weight.detach() + 1
        key = f"base_model.model.{module.points[0].path}.ia3_l"
        part = "unet" if module.part == "unet" else "text_encoder"
        peft[f"{part}.{key}"] = factors[None] if module.stands == "before" else factors[:, None]
    save_tensors(tmp_path / "peft.safetensors", peft)
    found = ia3.from_file(tiny_model, tmp_path / "peft.safetensors")
    found.attach()
    assert_close(outputs(tiny_model), expected)


@pytest.mark.parametrize("name", golden("glora"))
def test_the_numbers_of_glora_are_those_of_lycoris(name: str) -> None:
    entry = golden("glora")[name]
    tensors = {key: torch.tensor(value) for key, value in entry["tensors"].items()}
    size = Size(len(tensors["a2.weight"]), entry["alpha"])
    tensors["alpha"] = torch.tensor(entry["alpha"])
    check_layer(entry, lambda point: glora.GLoRAModule(point, size), tensors)


def test_a_glora_of_the_older_layout_is_the_same(tiny_model: Model, tmp_path: Path) -> None:
    network = GLORA.filled(tiny_model).eval()
    network.attach()
    expected = outputs(tiny_model)
    network.detach()
    path = tmp_path / "old.safetensors"
    old = {}
    for key, value in network.tensors().items():
        tensor = key[-9:]
        old[key.removesuffix(tensor) + glora.SWAPPED[tensor] if tensor in glora.SWAPPED else key] = value
    assert old.keys() == network.tensors().keys()
    save_tensors(path, old)
    loaded = glora.from_file(tiny_model, path)
    loaded.attach()
    assert_close(outputs(tiny_model), expected)
    loaded.detach()
    other = GLORA.new(tiny_model, seed=2)
    other.load_file(path, tiny_model)
    assert all(torch.equal(value, network.tensors()[key]) for key, value in other.tensors().items())
    like = GLORA.new(tiny_model, like=path, dim=None, arguments={})
    assert (like.dim, {module.rank for module in like.by_name.values()}) == (None, {2, 4})


def test_which_layout_a_glora_has_is_told_by_its_shapes() -> None:
    newer = {"a1.weight": (8, 2), "a2.weight": (2, 8), "b1.weight": (8, 2), "b2.weight": (2, 8)}
    older = {glora.SWAPPED[name]: shape for name, shape in newer.items()}
    point = point_at(torch.nn.Linear(8, 8))
    assert glora.rank_of(point, newer) == (2, False)
    assert glora.rank_of(point, older) == (2, True)
    assert glora.rank_of(point_at(torch.nn.Linear(4, 8)), newer) == (0, False)


def test_ia3_stands_at_keys_values_and_feed_forward_layers(tiny_model: Model) -> None:
    found = {module.points[0].path: module.stands for module in IA3.new(tiny_model).by_name.values()}
    ends = {path.rsplit(".", 1)[1] for path in found}
    assert ends == {"to_k", "to_v", "2", "k_proj", "v_proj", "fc2"}
    assert {path.rsplit(".", 1)[1] for path, stands in found.items() if stands == "before"} == {"2", "fc2"}


def test_what_ia3_has_not_is_refused_or_a_warning(
    tiny_model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="conv_dim: networks.ia3 has none: keys, values and feed-forward"):
        ia3.check_arguments({"conv_dim": "4"})
    with pytest.raises(UserError, match="block_dims: networks.ia3 has none: its modules have a factor"):
        ia3.check_arguments({"block_dims": "4"})
    IA3.new(tiny_model)
    told = capsys.readouterr().err
    assert "--network_dim has no effect with networks.ia3" in told
    assert "--network_alpha has no effect with networks.ia3" in told


@pytest.mark.parametrize("kind", ["networks.glora", "networks.diag_oft", "networks.boft"])
def test_a_linear_layer_that_files_have_as_a_convolution_is_one_there(kind: str) -> None:
    """The projections of SD 2.x from a single file, as sd-scripts has them."""
    point = point_at(torch.nn.Linear(8, 4), is_1x1_in_files=True)
    module = {
        "networks.glora": lambda: glora.GLoRAModule(point, Size(2, 1.0)),
        "networks.diag_oft": lambda: diag_oft.DiagOFTModule(point, (2, 2, 2), 0.0, rescaled=True),
        "networks.boft": lambda: boft.BOFTModule(point, 1, 4),
    }[kind]()
    found = {key: tuple(value.shape) for key, value in module.file_tensors().items()}
    wanted = {
        "networks.glora": {
            "a1.weight": (8, 2, 1, 1),
            "a2.weight": (2, 8, 1, 1),
            "b1.weight": (4, 2, 1, 1),
            "b2.weight": (2, 8, 1, 1),
            "alpha": (),
        },
        "networks.diag_oft": {"oft_blocks": (2, 2, 2), "rescale": (4, 1, 1, 1), "alpha": ()},
        "networks.boft": {"boft_R": (1, 2, 4, 4), "boft_s": (1, 4)},
    }[kind]
    assert found == wanted
