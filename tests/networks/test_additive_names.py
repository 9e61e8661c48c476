"""Names and shapes of full-size models are those of sd-scripts and LyCORIS; patterns choose layers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from network_contract import Case
from torch import nn

from library.models.base import Model
from library.network.arguments import NetworkArguments, read_arguments
from library.network.kinds import KINDS
from library.problems import UserError
from networks import loha, lokr, lora

DATA = Path(__file__).parents[1] / "data"
SHAPES = json.loads((DATA / "additive_shapes.json").read_text())
ARGUMENTS = {
    "sdscripts_loha_sdxl": {},
    "sdscripts_loha_tucker_sdxl": {"use_tucker": "True"},
    "sdscripts_lokr_sdxl": {},
    "sdscripts_lokr_factor4_sdxl": {"factor": "4"},
    "lycoris_loha_sd1": {},
    "lycoris_lokr_sd1": {},
    "lycoris_lokr_factor8_sd1": {"factor": "8"},
}


@pytest.mark.parametrize("name", SHAPES)
def test_names_and_shapes_of_a_full_size_model_equal_the_reference(
    full_size: Callable[[str], Model], name: str
) -> None:
    family, module = name.rsplit("_", 1)[1], loha if "loha" in name else lokr
    model, asked = full_size(family), {"conv_dim": "4", "conv_alpha": "1", **ARGUMENTS[name]}
    with torch.device("meta"):
        made = {"dim": 8, "alpha": 1.0, "dropout": None, "parts": ("unet", "te"), "seed": 1}
        network = module.create(model, **made, arguments=asked)
        plain = lora.create(model, **made, arguments={"conv_dim": "4"})
    assert network.by_name.keys() == plain.by_name.keys()
    if "sdscripts" in name:
        assert len(network.by_name) == SHAPES[name]["count"]
    found: dict[str, dict[str, list[int]]] = {}
    for one in network.by_name.values():
        shapes = {key: list(value.shape) for key, value in one.state_dict().items()}
        assert found.setdefault(_signature(one.layer), shapes) == shapes
    known = SHAPES[name]["shapes"]
    assert {key: shapes for key, shapes in found.items() if key in known} == {
        key: shapes for key, shapes in known.items() if key in found
    }
    assert len(found.keys() & known.keys()) > 10


def _signature(layer: nn.Module) -> str:
    if isinstance(layer, nn.Conv2d):
        return f"C{layer.kernel_size[0]} {layer.in_channels}>{layer.out_channels}"
    return f"L {layer.in_features}>{layer.out_features}"


LORA = Case(lora, "lora")


def paths(model: Model, **arguments: str) -> list[str]:
    return [m.points[0].path for m in LORA.new(model, arguments=arguments).by_name.values()]


def test_patterns_choose_which_layers_get_modules(tiny_model: Model) -> None:
    every = paths(tiny_model)
    without = paths(tiny_model, exclude_patterns="['.*attn1.*', '.*mlp.*']")
    assert without == [path for path in every if "attn1" not in path and "mlp" not in path]
    rescued = paths(tiny_model, exclude_patterns=".*attn1.*", include_patterns=r"['.*to_q', '.*to_k']")
    assert rescued == [path for path in every if "attn1" not in path or path.endswith(("to_q", "to_k"))]
    assert paths(tiny_model, exclude_patterns="attn1") == every  # the whole path has to fit
    assert paths(tiny_model, include_patterns=".*attn1.*") == every  # it does not restrict


def test_a_pattern_that_fits_nothing_is_a_warning(
    tiny_model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    paths(tiny_model, exclude_patterns="attn1")
    assert "exclude_patterns: attn1 fits none of the layers that get modules" in capsys.readouterr().err


def test_ranks_follow_the_first_rule_that_fits(tiny_model: Model) -> None:
    arguments = {"network_reg_dims": r".*to_q=2,.*attn1.*=0,.*attn2.*=6"}
    ranks = {m.points[0].path: m.rank for m in LORA.new(tiny_model, arguments=arguments).by_name.values()}
    for path in paths(tiny_model):
        wanted = 2 if path.endswith("to_q") else None if "attn1" in path else 6 if "attn2" in path else 4
        assert ranks.get(path) == wanted


def test_rates_follow_the_first_rule_that_fits(tiny_model: Model) -> None:
    arguments = {"network_reg_lrs": r".*attn1.*=1e-3,.*layers\.0.*=0.5", "loraplus_unet_lr_ratio": "4"}
    network = LORA.new(tiny_model, arguments=arguments)
    groups = network.param_groups({"unet": 1.0, "te": 0.25})
    assert [(group["name"], group["lr"]) for group in groups] == [
        ("textencoder", 0.25),
        ("unet", 1.0),
        ("unet plus", 4.0),
        ("reg_lr_0", 1e-3),
        ("reg_lr_0 plus", 4e-3),
        ("reg_lr_1", 0.5),
    ]
    by_rule = {id(p) for group in groups if group["name"] == "reg_lr_0" for p in group["params"]}
    wanted = {id(m.lora_down.weight) for m in network.by_name.values() if "attn1" in m.points[0].path}
    assert by_rule == wanted
    everything = [id(p) for group in groups for p in group["params"]]
    assert sorted(everything) == sorted(id(p) for p in network.parameters())


def test_rules_may_have_commas_and_equals_signs_in_their_patterns() -> None:
    found = read_arguments({"network_reg_dims": "a{1,2}=4, (?=b)b.*=8", "exclude_patterns": "[a-c]+"})
    assert found == NetworkArguments(
        network_reg_dims=(("a{1,2}", 4), ("(?=b)b.*", 8)), exclude_patterns=("[a-c]+",)
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("network_reg_dims", ".*=x", "expects regex=value"),
        ("network_reg_dims", ".*", "expects regex=value,regex=value, got '.*'"),
        ("network_reg_dims", "(=4", "expects a regular expression"),
        ("network_reg_lrs", "a=-1", "expects regex=value"),
        ("exclude_patterns", "['(']", "expects a regular expression"),
        ("include_patterns", "[1]", "expects a list of regular expressions"),
        ("include_patterns", "[1, 2", "expects a regular expression"),
        ("include_patterns", "(1, 2)", "expects a list of regular expressions"),
    ],
)
def test_wrong_patterns_are_refused(name: str, value: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read_arguments({name: value})
    assert message in str(error.value)


@pytest.mark.parametrize("module", [lora, loha, lokr])
@pytest.mark.parametrize("name", ["rs_lora", "use_scalar", "use_tucker", "dora_wd"])
def test_a_switch_is_true_or_false(module: object, name: str) -> None:
    for value in ("true", "False", "1", "0", "yes", "no"):
        module.check_arguments({name: value})
    with pytest.raises(UserError, match=f"--network_args {name}: expects true or false, got 'none'"):
        module.check_arguments({name: "none"})


def test_a_root_scale_is_in_the_files_alpha(tiny_model: Model) -> None:
    network = LORA.new(tiny_model, arguments={"rs_lora": "true"})
    assert {round(alpha, 6) for alpha in network.alphas()} == {4.0}  # 2 * sqrt 4
    assert {module.scale for module in network.by_name.values()} == {1.0}
    assert KINDS["lora"].rank == "lora_down.weight"
