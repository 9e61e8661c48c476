"""LoRA-FA and DyLoRA: networks with files of a LoRA, of which only parts learn."""

import math
from pathlib import Path

import pytest
import torch
from additive_layers import GOLDEN
from commands import make_pictures, run_here
from long_cases import long
from network_contract import CHECKS, Case, Check, point_at
from torch import nn
from torch.testing import assert_close
from trainers import options, weights

from library.models.base import Model
from library.models.weights import load_tensors
from library.network.sizes import Size
from library.problems import UserError
from networks import dylora, lora, lora_fa

LORA_FA = Case(lora_fa, "lora", {"conv_dim": "2"})
DYLORA = Case(dylora, "lora", {"conv_dim": "4"})
TABLE = GOLDEN["dylora"]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_a_lora_fa_keeps_the_contract(check: Check, tiny_model: Model, tmp_path: Path) -> None:
    check(LORA_FA, tiny_model, tmp_path)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_a_dylora_keeps_the_contract(check: Check, tiny_model: Model, tmp_path: Path) -> None:
    check(DYLORA, tiny_model, tmp_path)


@pytest.mark.parametrize("case", [LORA_FA, DYLORA], ids=["lora_fa", "dylora"])
def test_names_are_those_of_a_lora(case: Case, any_model: Model) -> None:
    theirs = lora.create(any_model, **SETTINGS, arguments={"conv_dim": "2"}, parts=("unet", "te"))
    ours = case.factory.create(any_model, **SETTINGS, arguments={"conv_dim": "2"}, parts=("unet", "te"))
    assert {k: v.shape for k, v in ours.tensors().items()} == {
        k: v.shape for k, v in theirs.tensors().items()
    }


SETTINGS = {"dim": 4, "alpha": 2.0, "dropout": None, "seed": 1}


def test_a_of_a_lora_fa_is_normal_and_has_no_gradient(tiny_model: Model) -> None:
    for wide_in, out, rank, deviation in next(iter(GOLDEN["lora_fa_std"].values())):
        module = lora_fa.LoRAFAModule(point_at(nn.Linear(wide_in, out)), Size(rank, 1.0))
        module.initialize(torch.Generator().manual_seed(0))
        assert_close(float(module.lora_down.weight.std()), deviation, rtol=0.1, atol=0)
        assert module.lora_up.weight.count_nonzero() == 0
    network = LORA_FA.new(tiny_model)
    groups = network.param_groups({"unet": 1.0, "te": 1.0})
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    assert trained == {id(module.lora_up.weight) for module in network.by_name.values()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_lora_fa_keeps_no_inputs_for_the_backward_pass(dtype: torch.dtype) -> None:
    kept: dict[str, list[tuple[int, ...]]] = {}
    for kind in (lora.LoRAModule, lora_fa.LoRAFAModule):
        layer = nn.Linear(32, 48).to(dtype).requires_grad_(False)
        module = kind(point_at(layer), Size(4, 4.0))
        module.initialize(torch.Generator().manual_seed(0))
        module.attach()
        shapes = kept.setdefault(kind.__name__, [])
        x = torch.randn(2, 16, 32, dtype=dtype)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=shapes: (s.append(t.shape), t)[1], lambda t: t
        ):
            layer(x).sum().backward()
        assert module.lora_up.weight.grad is not None
    assert torch.Size([2, 16, 32]) in kept["LoRAModule"]
    assert torch.Size([2, 16, 32]) not in kept["LoRAFAModule"]


def test_copies_for_a_step_of_16_bits_leave_a_alone(tiny_model: Model) -> None:
    network = LORA_FA.new(tiny_model)
    network.cast_for_step(torch.bfloat16)
    down, up = next(iter(network.by_name.values())).weights_in(torch.bfloat16)
    assert (down.dtype, up.dtype) == (torch.bfloat16, torch.bfloat16)
    assert (down.requires_grad, up.requires_grad) == (False, True)


def new_dylora(entry: dict, unit: int = 1) -> dylora.DyLoRAModule:
    weight = torch.tensor(entry["W"])
    layer = nn.Linear(5, 3) if weight.ndim == 2 else nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
    layer.weight.data, layer.bias.data = weight, torch.tensor(entry["bias"])
    module = dylora.DyLoRAModule(
        point_at(layer.requires_grad_(False)), Size(len(entry["A"]), entry["alpha"]), unit=unit
    )
    module.lora_down.weight.data = torch.tensor(entry["A"])
    module.lora_up.weight.data = torch.tensor(entry["B"]).reshape(module.lora_up.weight.shape)
    module.attach()
    return module


def test_a_dylora_gives_what_it_gives_in_sd_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    linear, conv = TABLE["dylora_linear"], TABLE["dylora_conv3"]
    for entry, cases in ((linear, linear["cases"]), (conv, [conv])):
        module = new_dylora(entry)
        for case in cases:
            monkeypatch.setattr(module, "draw", lambda case=case: case["drawn"])
            module.zero_grad()
            out = module.layer(torch.tensor(entry["x"]))
            assert_close(out, torch.tensor(case["y"]), rtol=1e-4, atol=1e-5)
            out.square().sum().backward()
            down, up = module.lora_down.weight.grad.flatten(1), module.lora_up.weight.grad.flatten(1)
            trained = case.get("trains_ranks", [case["drawn"]])
            assert torch.nonzero(down.abs().sum(1)).flatten().tolist() == trained
            assert torch.nonzero(up.abs().sum(0)).flatten().tolist() == trained


def test_every_block_of_ranks_is_drawn_and_strength_counts() -> None:
    entry = TABLE["dylora_linear"]
    module = new_dylora(entry, unit=2)
    torch.manual_seed(0)
    drawn = [module.draw() for _ in range(2000)]
    assert set(drawn) == {0, 2}
    assert 900 < drawn.count(0) < 1100
    x = torch.tensor(entry["x"])
    module.eval()
    full, own = module.layer(x), nn.functional.linear(x, module.layer.weight, module.layer.bias)
    scale = entry["alpha"] / 4 * torch.tensor(entry["B"]) @ torch.tensor(entry["A"])
    assert_close(full, own + x @ scale.T)
    module.multiplier = 0.5
    assert_close(module.layer(x), own + 0.5 * x @ scale.T)
    assert math.isclose(module.scale, entry["alpha"] / 4)


def test_what_they_cannot_have_is_refused_with_the_reason(tiny_model: Model) -> None:
    with pytest.raises(UserError) as error:
        lora_fa.check_arguments({"loraplus_lr_ratio": "4"})
    assert str(error.value) == (
        "--network_args loraplus_lr_ratio: networks.lora_fa has none: LoRA+ lets one matrix learn faster "
        "than the other, and LoRA-FA trains one; leave it out"
    )
    with pytest.raises(UserError, match="dora_wd: networks.dylora has none: its magnitudes"):
        dylora.check_arguments({"dora_wd": "true"})
    with pytest.raises(UserError, match="--network_args unit: 3 does not divide the rank 4"):
        DYLORA.new(tiny_model, arguments={"unit": "3"})
    with pytest.raises(UserError, match="--network_args unit: expects a whole number of 1 or more"):
        dylora.check_arguments({"unit": "0"})


@pytest.mark.parametrize("kind", [long("lora_fa"), "dylora", "loha", long("lokr")])
def test_they_are_trained_resumed_and_gone_on_from(kind: str, tiny_model_file: Path, tmp_path: Path) -> None:
    make_pictures(tmp_path / "data" / "1_sks", 2)

    def train(out: str, *more: object) -> Path:
        arguments = ("--network_args", "conv_dim=2", "rank_dropout=0.1", "module_dropout=0.1")
        arguments += ("use_scalar=true",) if kind in ("loha", "lokr") else ()
        network = ("--network_module", f"networks.{kind}", "--network_dim", 2, *arguments, *more)
        run_here("train_network.py", *options(tiny_model_file, tmp_path / "data", tmp_path / out, *network))
        return tmp_path / out / "x.safetensors"

    path = train("out", "--max_train_steps", 3, "--save_state")
    first = train("first", "--max_train_steps", 1, "--save_state")
    again = train("again", "--max_train_steps", 3, "--resume", first.parent / "x-state")
    assert weights(again) == weights(path)
    assert all(tensor.any() for key, tensor in load_tensors(path).items() if "unet" in key)
    assert not any(key.endswith("scalar") for key in load_tensors(path))
    train("more", "--max_train_steps", 1, "--network_weights", path, "--dim_from_weights")
