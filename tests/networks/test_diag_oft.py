import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from golden_layers import check_layer, golden
from network_contract import CHECKS, Case, Check, outputs
from torch.testing import assert_close

from library.models.base import Model
from library.models.weights import save_tensors
from library.network.sizes import factorize
from library.problems import UserError
from networks import diag_oft, lycoris_boft

DATA = Path(__file__).parents[1] / "data"
KINDS = {
    "oft": Case(diag_oft, "diag_oft", {"conv_dim": "4", "rescaled": "true"}, draws=False),
    # Blocks of six outputs: the tiny SDXL's second text encoder, 48 wide, has eight of these.
    "boft": Case(lycoris_boft, "diag_oft", {"conv_dim": "6", "rescaled": "yes"}, draws=False, dim=6),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_an_oft_of_lycoris_keeps_the_contract(check: Check, any_model: Model, tmp_path: Path) -> None:
    check(KINDS["oft"], any_model, tmp_path)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_a_boft_of_lycoris_keeps_the_contract(check: Check, any_model: Model, tmp_path: Path) -> None:
    check(KINDS["boft"], any_model, tmp_path)


@pytest.mark.parametrize(
    ("section", "name"), [(one, name) for one in ("diag_oft", "lycoris_boft") for name in golden(one)]
)
def test_its_numbers_are_those_of_lycoris(section: str, name: str) -> None:
    entry = golden(section)[name]
    tensors = {key: torch.tensor(value) for key, value in entry["tensors"].items()}
    shape = tuple(tensors["oft_blocks"].shape)
    kind = diag_oft.ButterflyModule if len(shape) == 4 else diag_oft.DiagOFTModule
    check_layer(
        entry,
        lambda point: kind(point, shape, entry["constraint"], rescaled="rescale" in tensors),
        tensors | {"alpha": torch.tensor(entry["constraint"])},
    )


def test_sizes_of_blocks_are_those_of_lycoris() -> None:
    for out, dim, side, count in golden("boft_sizes"):
        assert lycoris_boft.power_of_two_blocks(out, dim) == (side or 0, count)
    for out, dim, stages in golden("boft_stages"):
        side, count = lycoris_boft.power_of_two_blocks(out, out if dim < 0 else dim)
        assert (side * count, lycoris_boft.stages_of(count)) == (out, stages)
    pairs = {(768, 8): (8, 96), (320, 16): (16, 20), (4, 4): (1, 4), (320, -1): (16, 20), (250, 4): (2, 125)}
    assert {given: factorize(*given) for given in pairs} == pairs


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_shapes_of_a_full_size_model_are_those_of_lycoris(
    full_size: Callable[[str], Model], family: str
) -> None:
    model = full_size(family)
    with torch.device("meta"):
        found = KINDS["oft"].new(model, dim=8, alpha=None, arguments={"conv_dim": "4"}).tensors()
    reference = json.loads((DATA / f"{family}_lora_keys.json").read_text())
    expected = {}
    for name, (kind, _, out, *_) in (reference["base"] | reference["conv"]).items():
        side = 4 if kind == "C3" else 8
        expected |= {f"{name}.oft_blocks": (out // side, side, side), f"{name}.alpha": ()}
    assert {key: tuple(value.shape) for key, value in found.items()} == expected


def test_layers_without_a_power_of_two_are_named_once(
    full_size: Callable[[str], Model], capsys: pytest.CaptureFixture[str]
) -> None:
    with torch.device("meta"):
        found = lycoris_boft.create(
            full_size("sd1"), dim=8, alpha=None, dropout=None, arguments={}, parts=("unet", "te"), seed=1
        )
    assert {module.part for module in found.by_name.values()} == {"te"}
    assert "--network_dim 8 cannot divide 320, 640, 1280, 2560, 5120, 10240 outputs: 192 layers" in (
        capsys.readouterr().err
    )
    with pytest.raises(UserError, match="--network_dim 8: cannot divide 320, 640, 1280"):
        lycoris_boft.create(
            full_size("sd1"), dim=8, alpha=None, dropout=None, arguments={}, parts=("unet",), seed=1
        )


def test_either_reads_the_files_of_the_other_and_those_without_alpha(
    tiny_model: Model, tmp_path: Path
) -> None:
    for case in KINDS.values():
        network = case.filled(tiny_model, arguments={"constraint": "0"}).eval()
        network.attach()
        expected = outputs(tiny_model)
        network.detach()
        tensors = {key: value for key, value in network.tensors().items() if not key.endswith("alpha")}
        save_tensors(tmp_path / "x.safetensors", tensors)
        for module in (diag_oft, lycoris_boft):
            again = module.from_file(tiny_model, tmp_path / "x.safetensors")
            again.attach()
            assert_close(outputs(tiny_model), expected)
            again.detach()


def test_alphas_and_halves_are_refused_with_the_reason(
    capsys: pytest.CaptureFixture[str], tiny_model: Model
) -> None:
    with pytest.raises(UserError, match="networks.diag_oft has none: what it counts is the constraint"):
        diag_oft.check_arguments({"block_alphas": "1"})
    with pytest.raises(UserError, match="networks.lycoris_boft has none: its modules have no two halves"):
        lycoris_boft.check_arguments({"loraplus_unet_lr_ratio": "1"})
    KINDS["oft"].new(tiny_model, alpha=1.0)
    assert "--network_alpha has no effect with networks.diag_oft" in capsys.readouterr().err
