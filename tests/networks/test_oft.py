import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from golden_layers import check_layer, golden
from network_contract import CHECKS, Case, Check, outputs, point_at
from torch.testing import assert_close

from library.models.base import Model
from library.models.weights import save_tensors
from library.problems import UserError
from networks import oft

DATA = Path(__file__).parents[1] / "data"
OFT = Case(oft, "oft", {"enable_all_linear": "true", "enable_conv": "true"}, parts=("unet",), draws=False)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_an_oft_keeps_the_contract(check: Check, any_model: Model, tmp_path: Path) -> None:
    check(OFT, any_model, tmp_path)


@pytest.mark.parametrize("name", golden("oft"))
def test_its_numbers_are_those_of_sd_scripts(name: str) -> None:
    entry = golden("oft")[name]
    blocks, alpha = torch.tensor(entry["blocks"]), entry["alpha"]
    numbers = {"W_eff": entry["W_merged"], "half": entry.get("y_mult05")}
    tensors = {"oft_blocks": blocks, "alpha": torch.tensor(alpha)}
    check_layer(entry | numbers, lambda point: oft.OFTModule(point, len(blocks), alpha), tensors)


@pytest.mark.parametrize(
    ("arguments", "counts"),
    [
        ({}, (128, 560)),
        ({"enable_all_linear": "yes"}, (192, 722)),
        ({"enable_conv": "1", "enable_all_linear": "true"}, (278, 788)),
    ],
    ids=["attention", "all_linear", "convolutions"],
)
def test_names_and_shapes_of_full_size_models_are_those_of_sd_scripts(
    full_size: Callable[[str], Model], arguments: dict[str, str], counts: tuple[int, int]
) -> None:
    for family, count in zip(("sd1", "sdxl"), counts, strict=True):
        model = full_size(family)
        with torch.device("meta"):
            found = oft.create(
                model, dim=4, alpha=None, dropout=None, arguments=arguments, parts=("unet", "te"), seed=1
            )
        reference = json.loads((DATA / f"{family}_lora_keys.json").read_text())
        layers = reference["base"] | (reference["conv"] if "enable_conv" in arguments else {})
        chosen = {
            name.replace("lora_", "oft_", 1): out
            for name, (_, _, out, *_) in layers.items()
            if name.startswith("lora_unet_") and (arguments or "_attn1_" in name or "_attn2_" in name)
        }
        assert len(chosen) == count
        assert {key: tuple(value.shape) for key, value in found.tensors().items()} == {
            **{f"{name}.oft_blocks": (4, out // 4, out // 4) for name, out in chosen.items()},
            **{f"{name}.alpha": () for name in chosen},
        }


def test_without_an_alpha_the_limit_is_a_thousandth_and_zero_is_refused(
    tiny_model: Model, tmp_path: Path
) -> None:
    network = OFT.new(tiny_model, alpha=None)
    assert (network.alpha, network.dim) == (1e-3, 4)
    assert {round(value, 6) for value in network.alphas()} == {1e-3}
    with pytest.raises(UserError, match="--network_alpha: limits the rotation"):
        OFT.new(tiny_model, alpha=0.0)
    with pytest.raises(UserError, match="cannot be divided into 3 blocks"):
        OFT.new(tiny_model, dim=3)
    with pytest.raises(UserError, match="is for the U-Net only"):
        OFT.new(tiny_model, parts=("te",))


def test_a_file_without_alphas_has_no_limit_and_one_of_zero_rotates_nothing(
    tiny_model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, before = OFT.filled(tiny_model, arguments={}).tensors(), outputs(tiny_model)
    save_tensors(tmp_path / "a.safetensors", {k: v for k, v in tensors.items() if "alpha" not in k})
    loose = oft.from_file(tiny_model, tmp_path / "a.safetensors")
    assert {module.limit for module in loose.by_name.values()} == {None}
    save_tensors(
        tmp_path / "b.safetensors", {k: torch.tensor(0.0) if "alpha" in k else v for k, v in tensors.items()}
    )
    none = oft.from_file(tiny_model, tmp_path / "b.safetensors")
    assert "alpha is 0 in 32 modules, e.g. oft_unet_" in capsys.readouterr().err
    none.attach()
    assert_close(outputs(tiny_model), before)


def test_arguments_of_lora_without_a_meaning_are_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="networks.oft has none: its modules have no two halves"):
        oft.check_arguments({"loraplus_lr_ratio": "4"})
    with pytest.raises(UserError, match="enable_conv: expects true or false, got 'maybe'"):
        oft.check_arguments({"enable_conv": "maybe"})
    assert not oft._read({"enable_conv": "False"}).enable_conv


def test_dropout_leaves_blocks_or_modules_out_in_training_only(tiny_model: Model) -> None:
    layer = torch.nn.Linear(8, 64)
    module = oft.OFTModule(point_at(layer), 32, 10.0)
    module.oft_blocks.data.normal_()
    x = torch.randn(3, 8)
    plain = layer(x)
    full = module.change(plain, x)
    module.block_dropout = 0.5
    dropped = module.train().change(plain, x)
    same = (dropped == plain).all(dim=0).view(32, 2).all(dim=1)
    assert 0 < same.sum() < 32
    kept = ~same.repeat_interleave(2)
    assert_close(dropped[:, kept], full[:, kept])
    module.block_dropout, module.module_dropout = 0.0, 1 - 1e-9
    assert torch.equal(module.change(plain, x), plain)
    assert_close(module.eval().change(plain, x), full)


def test_what_it_multiplies_with_is_kept_where_nothing_is_trained() -> None:
    module = oft.OFTModule(point_at(torch.nn.Linear(4, 8)), 2, 10.0)
    with torch.no_grad():
        module.oft_blocks.normal_()
        first = module.matrices()
        assert module.matrices() is first
        module.oft_blocks.mul_(2)
        assert module.matrices() is not first
    assert module.matrices().requires_grad
