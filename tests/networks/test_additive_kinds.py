"""The contract of networks, for LoHa and LoKr, and for what additive kinds can be asked for."""

from pathlib import Path

import network_contract as contract
import pytest
import torch
from kinds import make_kind
from long_cases import long
from network_contract import CHECKS, Case, Check
from torch.testing import assert_close

from library.models.base import Model
from library.models.saving import Saving
from library.models.weights import save_tensors
from library.network.loading import NetworkFactory
from library.network_tools.changes import open_changes
from library.problems import UserError
from networks import loha, lokr, lora


def case(factory: NetworkFactory, kind: str, **arguments: str) -> Case:
    return Case(factory, kind, {"conv_dim": "2", **arguments}, arguments, size=0.3)


KINDS = {"loha": case(loha, "loha"), "lokr": case(lokr, "lokr", factor="2")}
VARIANTS = {
    "loha-tucker": case(loha, "loha", use_tucker="true"),
    "lokr-tucker": case(lokr, "lokr", factor="2", use_tucker="true"),
    "lokr-both": case(lokr, "lokr", factor="4", decompose_both="true", unbalanced_factorization="true"),
    "lora-tucker": case(lora, "lora", use_tucker="true"),
    "dora": case(lora, "lora", dora_wd="true"),
    "dora-output": case(lora, "lora", dora_wd="true", wd_on_output="true", use_tucker="true"),
    "doha": case(loha, "loha", dora_wd="true"),
    "dokr": case(lokr, "lokr", factor="2", dora_wd="yes", wd_on_output="1"),
}
# Those that a variant can break.
OF_VARIANTS = (
    contract.check_it_changes_nothing_at_first,
    contract.check_merged_it_is_as_attached,
    contract.check_the_multiplier_goes_from_off_to_full,
    contract.check_a_file_gives_the_same_network,
    contract.check_gradients_are_in_the_network_only,
    contract.check_norms_are_limited,
    contract.check_a_network_can_be_like_a_file,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("family", ["sd1", long("sd2"), "sdxl"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_keeps_the_contract(kind: str, family: str, check: Check, tmp_path: Path) -> None:
    check(KINDS[kind], make_kind(family, shallow=True), tmp_path)


@pytest.mark.parametrize("check", OF_VARIANTS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_keeps_the_contract(variant: str, check: Check, tiny_model: Model, tmp_path: Path) -> None:
    check(VARIANTS[variant], tiny_model, tmp_path)


def test_the_tools_know_tucker_kernels_and_refuse_magnitudes(tiny_model: Model, tmp_path: Path) -> None:
    network = VARIANTS["lora-tucker"].filled(tiny_model)
    network.save(tmp_path / "tucker.safetensors", Saving("safetensors"))
    changes = open_changes(tmp_path / "tucker.safetensors")
    assert changes.shapes.keys() == network.by_name.keys()
    for name, module in network.by_name.items():
        assert_close(changes.read(name).weight(), module.delta_weight().detach())
    VARIANTS["dora"].filled(tiny_model).save(tmp_path / "dora.safetensors", Saving("safetensors"))
    with pytest.raises(UserError, match="is DoRA .* depends on the model's weights; .* --base_model"):
        open_changes(tmp_path / "dora.safetensors")


@pytest.mark.parametrize("factory", [loha, lokr])
def test_files_that_do_not_fit_are_refused(
    factory: NetworkFactory, tiny_model: Model, tmp_path: Path
) -> None:
    network = KINDS[factory.__name__.split(".")[-1]].filled(tiny_model)
    tensors, path = network.tensors(), tmp_path / "x.safetensors"
    name = next(iter(network.by_name))
    first = next(key for key in tensors if key.startswith(name) and not key.endswith("alpha"))
    last = [key for key in tensors if key.startswith(name)][-1]
    for changed in (
        {key: value for key, value in tensors.items() if key != first},
        tensors | {first: torch.zeros(5, 3)},
        tensors | {last: torch.zeros(7, 7)},
        tensors | {f"{name}.dora_scale": torch.zeros(3, 3)},
    ):
        save_tensors(path, changed)
        with pytest.raises(UserError) as error:
            factory.from_file(tiny_model, path)
        assert len(str(error.value).splitlines()) == 1
