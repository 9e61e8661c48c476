"""The numbers of LyCORIS and sd-scripts: layers with LoRA, LoHa, LoKr and DoRA on each of them."""

import torch
from additive_layers import GOLDEN, MODULES, filled_module, module_of, output
from network_contract import point_at
from pytest import mark
from torch import Tensor, nn
from torch.testing import assert_close

from library.network.additive import Variant, low_rank_norms
from library.network.sizes import Size, factorize
from networks import loha, lokr, lora


def close(found: Tensor, wanted: object) -> None:
    assert_close(found, torch.tensor(wanted).reshape(found.shape), rtol=1e-4, atol=1e-5)


@mark.parametrize("name", MODULES)
def test_a_layer_gives_what_it_gives_in_lycoris(name: str) -> None:
    entry, module = MODULES[name], filled_module(name)
    x = torch.tensor(entry["x"])
    close(output(module, x), entry["y"])
    close(module.layer.weight + module.delta_weight(), entry["W_eff"])
    if "y_at_half" in entry:
        close(output(module, x, 0.5), entry["y_at_half"])
    assert_close(output(module, x, 0.0), module.layer(x))
    assert float(module.alpha) == torch.tensor(entry["alpha"]).item()


@mark.parametrize("name", MODULES)
def test_its_file_holds_what_lycoris_saves(name: str) -> None:
    entry, module = MODULES[name], filled_module(name)
    found = module.file_tensors()
    if "saved" in entry:
        assert found.keys() == entry["saved"].keys()
        for key, value in entry["saved"].items():
            close(found[key], value)
    again = module_of(name)
    again.load_state_dict(again.from_file_tensors(found))
    again.took_values()
    x = torch.tensor(entry["x"])
    assert_close(output(again.eval(), x), output(module, x))


@mark.parametrize("name", MODULES)
def test_a_new_module_changes_nothing_but_learns(name: str) -> None:
    module = module_of(name)
    module.initialize(torch.Generator().manual_seed(0))
    x = torch.tensor(MODULES[name]["x"])
    assert_close(output(module, x), module.layer(x), rtol=1e-5, atol=1e-5)
    module.multiplier = 1.0
    module.attach()
    module.layer(x).square().sum().backward()
    gradients = [p.grad for p in module.parameters() if p.grad is not None and p.grad.any()]
    assert gradients and all(bool(g.isfinite().all()) for g in gradients)


@mark.parametrize("name", [name for name in MODULES if "dora_scale" in MODULES[name]["parameters"]])
def test_no_gradient_flows_through_the_norm_of_dora(name: str) -> None:
    """As in the paper: the gradient is that of a constant norm."""
    module = filled_module(name)
    x = torch.tensor(MODULES[name]["x"])
    module.attach()
    module.layer(x).square().sum().backward()
    found = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    with torch.no_grad():
        norms = module.sum_norms(module.axis).sqrt()
    factor = module.dora_scale / norms.view(module.dora_scale.shape)
    module.detach()
    weight = (module.layer.weight + module.additive_delta()) * factor
    layer = module.layer
    out = module.as_layer(x, weight) + (
        layer.bias[:, None, None] if isinstance(layer, nn.Conv2d) else layer.bias
    )
    out.square().sum().backward()
    for one, parameter in zip(found, module.parameters(), strict=True):
        assert_close(one, parameter.grad, rtol=1e-3, atol=1e-3)


def test_layers_divide_as_in_lycoris() -> None:
    table = GOLDEN["lokr_factors"]
    found = {
        side: {factor: list(factorize(int(side), int(factor))) for factor in row}
        for side, row in table.items()
    }
    assert found == table


def test_a_loha_is_a_lora_of_its_squared_rank() -> None:
    module = filled_module("loha_linear_scalar")
    up, down = loha._as_low_rank(*module.factors(torch.float32))
    wanted = GOLDEN["loha_as_lora"]
    close(up @ down, (torch.tensor(wanted["up"]) @ torch.tensor(wanted["down"])).tolist())


@mark.parametrize("axis", ["input", "output"])
def test_norms_come_from_factors(axis: str) -> None:
    module = filled_module("dora_linear_in_half")
    close(module.sum_norms(axis).sqrt(), GOLDEN["dora_norms"][f"norms_{axis}_axis"])


@mark.parametrize("axis", ["input", "output"])
@mark.parametrize("name", [name for name in MODULES if "full_matrix" not in name])
def test_norms_without_the_change_are_those_with_it(name: str, axis: str) -> None:
    module = filled_module(name)
    whole = module.layer.weight + module.additive_delta()
    dims = [dim for dim in range(whole.ndim) if dim != (1 if axis == "input" else 0)]
    assert_close(module.sum_norms(axis), whole.square().sum(dims), rtol=1e-4, atol=1e-5)
    assert_close(module.change_norm(), module.additive_delta().norm())


@mark.parametrize("rank", [2, 6])
@mark.parametrize("layer", [nn.Linear(32, 48), nn.Conv2d(8, 12, 3, padding=1, stride=2)])
def test_both_ways_of_a_loha_are_one(rank: int, layer: nn.Module) -> None:
    module = loha.LoHaModule(point_at(layer), Size(rank, 1.0), Variant())
    module.scale = 1.0
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 8, 6, 6) if isinstance(layer, nn.Conv2d) else torch.randn(2, 5, 32)
    found = []
    for is_low_rank in (True, False):
        module._is_low_rank = is_low_rank
        module.zero_grad()
        own = x.clone().requires_grad_()
        out = module.add_to(layer(own), own)
        out.square().sum().backward()
        found.append([out.detach(), own.grad, *(p.grad.clone() for p in module.parameters())])
    for one, other in zip(*found, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_a_loha_makes_no_matrix_of_the_layers_size_where_a_lora_is_less_work() -> None:
    made = [loha.LoHaModule(point_at(nn.Linear(64, 64)), Size(rank, 1.0)) for rank in (4, 8)]
    assert [one._is_low_rank for one in made] == [True, False]


@mark.parametrize("kind", ["lora", "loha", "lokr"])
def test_dropped_outputs_keep_their_mean_unless_asked_not_to(kind: str) -> None:
    layer = nn.Linear(8, 8, bias=False)
    for scales in (True, False):
        variant = Variant(rank_dropout=0.5, scales_dropout=scales)
        makers = {
            "lora": lora.maker(lora.LoRAModule, None),
            "loha": loha._maker(None),
            "lokr": lokr._maker(lokr.LoKrArguments(factor=2), None),
        }
        module = makers[kind](point_at(layer), Size(4, 4.0), variant, {})
        torch.manual_seed(0)
        for parameter in module.parameters():
            nn.init.normal_(parameter)
        x, zero = torch.ones(1, 8), torch.zeros(1, 8)
        exact = module.eval().add_to(zero, x)
        module.train()
        mean = torch.stack([module.add_to(zero, x) for _ in range(3000)]).mean(0)
        assert_close(mean, exact * (1.0 if scales else 0.5), rtol=0.15, atol=0.3)


def test_low_rank_norms_are_right_for_kernels() -> None:
    torch.manual_seed(0)
    weight, up, down = torch.randn(6, 4, 3, 3), torch.randn(6, 2), torch.randn(2, 36)
    whole = weight + (up @ down).view(weight.shape)
    assert_close(low_rank_norms(weight, up, down, "input"), whole.square().sum((0, 2, 3)))
    assert_close(low_rank_norms(weight, up, down, "output"), whole.square().sum((1, 2, 3)))


@mark.parametrize("name", MODULES)
def test_beside_a_layer_of_16_bits_it_computes_in_them(name: str) -> None:
    entry = MODULES[name]
    module = filled_module(name)
    wanted = output(module, torch.tensor(entry["x"]))
    module.layer.to(torch.bfloat16)
    module.use_copies([weight.to(torch.bfloat16) for weight in module.computed_with()])
    for strength in (1.0, 0.5):
        found = output(module, torch.tensor(entry["x"]).bfloat16(), strength)
        assert found.dtype == torch.bfloat16
        if strength == 1.0:
            assert (found.float() - wanted).norm() < 0.02 * wanted.norm()


def test_magnitudes_of_dora_count_in_16_bits_however_little_they_moved() -> None:
    """1.001 is no number of bfloat16."""
    for name in ("dora_linear_in", "dora_linear_out"):
        module = filled_module(name)
        module.lora_up.weight.data.zero_()
        module._take_magnitudes()
        module.layer.to(torch.bfloat16)
        module._take_magnitudes()
        module.dora_scale.data.mul_(1.001)
        assert_close(
            module._excess_for(torch.zeros(1).bfloat16()).float(),
            torch.full_like(module.dora_scale.flatten(), 0.001),
            rtol=0.02,
            atol=0,
        )
