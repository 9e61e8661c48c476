"""A further kind of network needs a module of its own and a row of KINDS: here both are in the test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from commands import make_pictures, run_here
from network_contract import CHECKS, Case, Check, outputs
from torch import Tensor, nn
from trainers import options, weights

from library.generation.command import load
from library.models import load_model
from library.models.base import AttachPoint, Model
from library.models.saving import Saving
from library.models.weights import load_tensors, save_tensors
from library.network.arguments import read_arguments
from library.network.building import build_network, network_from_file, plan_network
from library.network.files import Shapes, read_network
from library.network.kinds import KINDS, FileKind
from library.network.loading import open_network
from library.network.module import NetworkModule
from library.network.network import Network
from library.network.sizes import Size
from library.options.generation import (
    GeneratorComputeOptions,
    GeneratorModelOptions,
    GeneratorNetworkOptions,
)
from library.problems import UserError
from networks import lora

ME = sys.modules[__name__]
HALVES = ("w1_a", "w1_b", "w2_a", "w2_b")
KIND = FileKind(title="product", module=__name__, needs=HALVES, may_have=("alpha",), rank="w1_b")
PRODUCT = Case(ME, "product", {"conv_dim": "2"}, size=0.3)


class ProductModule(NetworkModule):
    """W + m * alpha / rank * (w1_a w1_b) o (w2_a w2_b), the Hadamard product of two low-rank pairs."""

    def __init__(self, point: AttachPoint, size: Size) -> None:
        super().__init__(point, size=size)
        out, width = self.weight_shape[0], self.weight_shape[1:].numel()
        for half in HALVES:
            shape = (out, size.rank) if half.endswith("a") else (size.rank, width)
            self.register_parameter(half, nn.Parameter(torch.zeros(shape)))

    def initialize(self, generator: torch.Generator) -> None:
        for name in ("w1_a", "w1_b", "w2_b"):  # w2_a stays zero
            nn.init.normal_(self.get_parameter(name), std=0.5, generator=generator)

    def delta_weight(self) -> Tensor:
        return ((self.w1_a @ self.w1_b) * (self.w2_a @ self.w2_b)).view(self.weight_shape) * self.scale

    def scale_change(self, factor: Tensor) -> None:
        self.w1_a *= factor


def make(point: AttachPoint, size: Size, _: Shapes) -> ProductModule:
    return ProductModule(point, size)


def create(model: Model, *, dropout: float | None, arguments: dict[str, str], seed: int, **asked) -> Network:
    plan = plan_network(model, "product", read_arguments(arguments), **asked)
    return build_network(model, "product", plan, make, seed=seed)


def from_file(model: Model, path: Path) -> Network:
    return network_from_file(model, path, "product", make)


def check_arguments(arguments: dict[str, str]) -> None:
    read_arguments(arguments, __name__)


@pytest.fixture(autouse=True)
def known_kind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(KINDS, "product", KIND)
    yield


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_it_keeps_the_contract(check: Check, tiny_model: Model, tmp_path: Path) -> None:
    check(PRODUCT, tiny_model, tmp_path)


def train(model: Path, folder: Path, out: str, *more: object) -> Path:
    """Some steps of train_network.py; its network."""
    if not (folder / "data").exists():
        make_pictures(folder / "data" / "1_sks", 2)
    network = ("--network_module", __name__, "--network_dim", 2, "--network_args", "conv_dim=1", *more)
    run_here("train_network.py", *options(model, folder / "data", folder / out, *network))
    return folder / out / "x.safetensors"


def test_it_is_trained_and_drawn_with(tiny_model_file: Path, tmp_path: Path) -> None:
    limits = ("--scale_weight_norms", 0.5, "--save_state")
    path = train(tiny_model_file, tmp_path, "out", "--max_train_steps", 2, *limits)
    first = train(tiny_model_file, tmp_path, "first", "--max_train_steps", 1, *limits)
    state = first.parent / "x-state"
    assert weights(
        train(tiny_model_file, tmp_path, "again", "--max_train_steps", 2, *limits, "--resume", state)
    ) == weights(path)
    assert read_network(path).metadata["ss_network_module"] == __name__
    assert all(tensor.any() for key, tensor in load_tensors(path).items() if "unet" in key)

    networks = GeneratorNetworkOptions(network_module=(__name__,), network_weights=(path,))
    drawn, _ = load(GeneratorModelOptions(ckpt=str(tiny_model_file)), GeneratorComputeOptions(), networks)
    drawn.float()
    alone = load_model(tiny_model_file)
    assert not torch.equal(outputs(alone), outputs(drawn))
    open_network(alone, path).attach()
    torch.testing.assert_close(outputs(alone), outputs(drawn))


def test_a_lora_is_no_product_and_a_product_is_no_lora(tiny_model: Model, tmp_path: Path) -> None:
    path, other = tmp_path / "lora.safetensors", tmp_path / "product.safetensors"
    ones = Case(lora, "lora").filled(tiny_model)
    ones.save(path, Saving("safetensors"))
    products = PRODUCT.filled(tiny_model)
    products.save(other, Saving("safetensors"))
    assert (read_network(path).kind, read_network(other).kind) == ("lora", "product")
    assert isinstance(next(iter(open_network(tiny_model, other).by_name.values())), ProductModule)
    with pytest.raises(UserError) as error:
        lora.from_file(tiny_model, other)
    advice = f"for a product give --network_module {__name__}"
    assert str(error.value) == f"{other}: holds no LoRA weights; {advice}"
    with pytest.raises(UserError) as error:
        Case(lora, "lora").new(tiny_model).load_file(other, tiny_model)
    make = f"make it one: python networks/resize_lora.py --model {other} --new_rank 4 --save_to FILE"
    cause = f"{other}: is a product, the network that is trained is a LoRA"
    assert str(error.value) == f"{cause}; give --network_module {__name__}, or {make}"
    for module in (None, "networks.lora", __name__):  # a file says itself what it is
        assert len(open_network(tiny_model, other, module).by_name) == len(products.by_name)
    save_tensors(other, ones.tensors() | products.tensors())
    with pytest.raises(
        UserError, match=r"mixes kinds of networks: LoRA \(lora_te_.*\) and product \(lora_te_"
    ):
        read_network(other)


@pytest.mark.parametrize("tensors", [{}, {"x.weight": torch.zeros(1)}, {"lora_unet_x.alpha": torch.zeros(1)}])
def test_a_file_of_no_kind_that_is_known_is_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    save_tensors(tmp_path / "x.safetensors", tensors)
    with pytest.raises(UserError, match="holds no network of a kind that is known here; it has e.g. "):
        read_network(tmp_path / "x.safetensors")
