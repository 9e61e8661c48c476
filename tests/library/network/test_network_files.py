"""Network files are looked into without a model, by a table of kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from commands import run

from library.models.base import Model
from library.models.weights import save_tensors
from library.network.files import read_network
from library.network.kinds import KINDS
from library.network.loading import load_network_module
from library.network.matching import read_for
from library.network.names import module_name, points_by_name
from library.problems import UserError

HALVES = ("lora_down.weight", "lora_up.weight")


def lora_of(*names: str, rank: int = 2) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{half}": torch.ones((rank, 3) if half == HALVES[0] else (3, rank))
        for name in names
        for half in HALVES
    }


def test_a_file_says_names_ranks_alphas_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    extra = {"lora_te_b.alpha": torch.tensor(1.5), "bundle_emb.cat.clip_l": torch.zeros(1, 768)}
    save_tensors(path, lora_of("lora_unet_a", "lora_te_b") | extra, {"ss_network_module": "networks.lora"})
    found = read_network(path)
    assert (found.kind, found.path) == ("lora", path)
    shapes = {HALVES[0]: (2, 3), HALVES[1]: (3, 2)}
    assert found.modules == {"lora_unet_a": shapes, "lora_te_b": shapes | {"alpha": ()}}
    assert (found.unknown, found.bundled) == ({}, {"bundle_emb.cat.clip_l": (1, 768)})
    assert found.read_bundled()["bundle_emb.cat.clip_l"].shape == (1, 768)
    assert found.metadata == {"ss_network_module": "networks.lora"}
    assert found.ranks == {"lora_unet_a": 2, "lora_te_b": 2}
    assert found.alphas() == {"lora_unet_a": 2.0, "lora_te_b": 1.5}
    assert torch.equal(found.read("lora_te_b", HALVES[1]), torch.ones(3, 2))


def test_looking_into_a_file_loads_no_torch(tmp_path: Path) -> None:
    save_tensors(tmp_path / "x.safetensors", lora_of("lora_unet_a"))
    code = (
        "import sys; from pathlib import Path; from library.network.files import read_network\n"
        "found = read_network(Path(sys.argv[1])); print(found.kind, found.ranks, 'torch' in sys.modules)"
    )
    assert run("-c", code, tmp_path / "x.safetensors").stdout == "lora {'lora_unet_a': 2} False\n"


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["lora_unet_a.lora_down.weight", "lora_unet_a.lora_up.weight"], "lora"),
        (["lora_unet_a.weight", "lora_unet_a.on_input"], "ia3"),
        (["oft_unet_a.oft_blocks", "oft_unet_a.alpha"], "oft"),
        (["lora_unet_a.oft_blocks", "lora_unet_a.alpha"], "diag_oft"),
        (["nobody.mid_block.0.oft_blocks"], "oft"),  # a spelling that neither has: the first row
    ],
)
def test_a_kind_is_known_by_its_tensors_and_if_others_have_them_by_its_names(
    keys: list[str], kind: str, tmp_path: Path
) -> None:
    save_tensors(tmp_path / "x.safetensors", {key: torch.zeros(1, 1) for key in keys})
    found = read_network(tmp_path / "x.safetensors")
    assert found.kind == kind and not found.unknown
    assert [f"{name}.{tensor}" for name, own in found.modules.items() for tensor in own] == sorted(keys)


def test_every_kind_names_a_module_that_is_there() -> None:
    for row in KINDS.values():
        load_network_module(row.module)


def test_a_files_names_are_found_in_a_table_of_the_models_layers(tiny_model: Model, tmp_path: Path) -> None:
    points = tiny_model.attach_points()
    table = points_by_name(points)
    assert {name: table[name] for name in map(module_name, points)} == dict(
        zip(map(module_name, points), points, strict=True)
    )
    other, point = next((name, point) for name, point in table.items() if point.part == "unet")
    name = module_name(point)
    assert other == "lora_unet_input_blocks_1_1_proj_in" and name != other
    save_tensors(tmp_path / "x.safetensors", lora_of(other))
    found = read_for(tiny_model, tmp_path / "x.safetensors", "lora")
    assert found.points == {name: point}
    assert (found.size(name).rank, found.size(name).alpha) == (2, 2.0)
    assert found.shapes(name) == {HALVES[0]: (2, 3), HALVES[1]: (3, 2), "alpha": ()}


def test_a_file_that_is_not_whole_is_refused(tiny_model: Model, tmp_path: Path) -> None:
    save_tensors(tmp_path / "x.safetensors", {"lora_unet_x.lora_down.weight": torch.zeros(2, 2)})
    with pytest.raises(UserError, match="1 tensors are missing, e.g. lora_unet_x.lora_up.weight"):
        read_for(tiny_model, tmp_path / "x.safetensors")
    first, second, *_ = points_by_name(tiny_model.attach_points())
    save_tensors(tmp_path / "y.safetensors", lora_of(first) | {f"{second}.alpha": torch.tensor(1.0)})
    with pytest.raises(UserError, match=f"2 tensors are missing, e.g. {second}.lora_down.weight"):
        read_for(tiny_model, tmp_path / "y.safetensors")
