"""What every kind of network must do: checks that the tests of a kind call, each over a fresh tiny model.

@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_keeps_the_contract(check: Check, any_model: Model, tmp_path: Path) -> None:
    check(Case(lora, "lora"), any_model, tmp_path)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from library.models.base import AttachPoint, Model
from library.models.saving import Saving
from library.models.weights import load_tensors, save_tensors
from library.network.additive import AdditiveModule
from library.network.files import read_network
from library.network.kinds import KINDS
from library.network.loading import NetworkFactory
from library.network.module import NetworkModule
from library.network.names import module_name
from library.network.network import Network
from library.problems import UserError, hears_warnings

BATCH = 2


@dataclass(frozen=True)
class Case:
    """A kind of network.

    factory: the module that users name.
    kind: its row in KINDS.
    arguments: --network_args, with which its modules stand at layers of every sort.
    linear: the same for linear layers and 1x1 convolutions alone.
    size: the deviation of its values after some training.
    parts: of the model, where it has modules.
    draws: whether its first values are drawn; else they are the same for every seed.
    alpha: --network_alpha.
    dim: --network_dim.
    """

    factory: NetworkFactory
    kind: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    linear: Mapping[str, str] = field(default_factory=dict)
    size: float = 0.1
    parts: tuple[str, ...] = ("unet", "te")
    draws: bool = True
    alpha: float = 2.0
    dim: int = 4

    @property
    def has_text(self) -> bool:
        """Whether it has modules in text encoders."""
        return "te" in self.parts

    def new(self, model: Model, **changes: Any) -> Network:
        """A network as a run begins with it."""
        settings = {
            "dim": self.dim,
            "alpha": self.alpha,
            "dropout": None,
            "arguments": dict(self.arguments),
            "parts": ("unet", "te"),
            "seed": 1,
        }
        return self.factory.create(model, **settings | changes)

    def filled(self, model: Model, **changes: Any) -> Network:
        """A network as after some training: no tensor is zero."""
        return fill(self.new(model, **changes), self.size)


Check = Callable[[Case, Model, Path], None]


def fill(network: Network, size: float = 0.1) -> Network:
    """Give every parameter some value."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * size)
    return network


def predict(model: Model, clip_skip: int | None = None) -> Tensor:
    """What the model predicts for fixed latents, captions and hints."""
    tokens = model.tokenizer(75)(["one, two", "three"])
    x = torch.randn((BATCH, 4, 8, 8), generator=torch.Generator().manual_seed(2))
    sizes = torch.tensor([[64, 64, 0, 0, 64, 64]] * BATCH)
    hint = torch.rand((BATCH, 3, 64, 64), generator=torch.Generator().manual_seed(4))
    condition = replace(model.encode_text(tokens, clip_skip), sizes=sizes, hint=hint)
    return model.predict(x, torch.tensor([10, 900]), condition)


@torch.no_grad()
def outputs(model: Model) -> Tensor:
    """The same as in use."""
    return predict(model.eval())


def point_at(layer: nn.Module, **facts: Any) -> AttachPoint:
    """A point for a layer that is in no model."""
    return AttachPoint(**{"part": "unet", "path": "x", "parent": "x", "prefix": "unet"} | facts, module=layer)


def check_it_changes_nothing_at_first(case: Case, model: Model, folder: Path) -> None:
    before = outputs(model)
    case.new(model).attach()
    # A 1x1 convolution together with its change is a product of matrices, which rounds otherwise.
    assert_close(outputs(model), before, rtol=0, atol=1e-5)


def check_first_values_depend_on_the_seed_and_the_name_alone(case: Case, model: Model, folder: Path) -> None:
    both, unet = case.new(model).tensors(), case.new(model, parts=("unet",), arguments=case.linear).tensors()
    assert 0 < len(unet) < len(both)
    assert all(torch.equal(both[key], value) for key, value in unet.items())
    other = case.new(model, seed=2).tensors()
    assert all(torch.equal(both[key], value) for key, value in other.items()) != case.draws


def check_merged_it_is_as_attached(case: Case, model: Model, folder: Path) -> None:
    before = outputs(model)
    network = case.filled(model).eval()
    network.attach()
    network.set_multiplier(0.7)
    attached = outputs(model)
    assert (attached - before).abs().max() > 0.01
    reason = next((module.why_not_merged for module in network.by_name.values() if module.why_not_merged), "")
    if reason:
        with pytest.raises(UserError) as error:
            network.merge()
        assert reason in str(error.value)
        network.detach()
        assert torch.equal(outputs(model), before)
        return
    network.merge()
    assert_close(outputs(model), attached, rtol=1e-4, atol=1e-5)


def check_the_multiplier_goes_from_off_to_full(case: Case, model: Model, folder: Path) -> None:
    before = outputs(model)
    network = case.filled(model).eval()
    network.attach()
    network.set_multiplier(0.0)
    assert_close(outputs(model), before)
    network.detach()
    for module in _of_every_sort(network):
        own = _output(module)
        module.attach()
        module.multiplier = 1.0
        full = _output(module)
        module.multiplier = 0.5
        assert (full - own).abs().max() > 1e-3
        assert_close(_output(module), (own + full) / 2, rtol=1e-4, atol=1e-4)
        module.detach()


def check_detaching_leaves_no_trace(case: Case, model: Model, folder: Path) -> None:
    before, layers = outputs(model), _traces(model)
    network = case.filled(model).eval()
    for _ in range(2):
        network.attach()
        network.attach()
        assert list(model.state_dict()) == layers["names"]
        assert not torch.equal(outputs(model), before)
        network.detach()
        network.detach()
        assert _traces(model) == layers
    assert torch.equal(outputs(model), before)


def check_several_stand_on_one_model(case: Case, model: Model, folder: Path) -> None:
    first, second = case.filled(model).eval(), case.filled(model, seed=2).eval()
    first.attach()
    one = outputs(model)
    second.attach()
    assert not torch.equal(outputs(model), one)
    second.detach()
    assert torch.equal(outputs(model), one)


@torch.no_grad()
def check_a_file_gives_the_same_network(case: Case, model: Model, folder: Path) -> None:
    network = case.filled(model).eval().requires_grad_(False)  # as one that was loaded
    network.attach()
    expected = outputs(model)
    network.detach()
    saving = Saving("safetensors", metadata={"ss_network_dim": "4"})
    for suffix in (".safetensors", ".pt", ".ckpt"):
        path = folder / f"x{suffix}"
        network.save(path, saving)
        loaded = case.factory.from_file(model, path)
        assert loaded.tensors().keys() == network.tensors().keys()
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        loaded.attach()
        assert torch.equal(outputs(model), expected)
        loaded.detach()
    loaded.save(folder / "again.safetensors", saving)
    assert (folder / "again.safetensors").read_bytes() == (folder / "x.safetensors").read_bytes()
    other = case.new(model, seed=2)
    other.load_file(folder / "x.safetensors", model)
    values = other.tensors()
    assert all(torch.equal(values[key], value) for key, value in loaded.tensors().items())
    network.save(folder / "half.safetensors", Saving("safetensors", dtype=torch.bfloat16))
    assert {tensor.dtype for tensor in load_tensors(folder / "half.safetensors").values()} == {torch.bfloat16}


def check_a_state_gives_its_tensors_back(case: Case, model: Model, folder: Path) -> None:
    network, other = case.filled(model), case.new(model, seed=2)
    tensors = {key: tensor.clone() for key, tensor in network.tensors().items()}
    other.load_tensors(tensors, "the saved state")
    assert list(other.tensors()) == list(tensors)
    assert all(torch.equal(value, tensors[key]) for key, value in other.tensors().items())


def check_gradients_are_in_the_network_only(case: Case, model: Model, folder: Path) -> None:
    model.requires_grad_(False)
    network = case.filled(model)
    network.attach()
    predict(model).square().sum().backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    idle = {layer for module in model.idle_text_modules() for layer in module.modules()}
    used = [module for module in network.by_name.values() if module.layer not in idle]
    parameters = [parameter for module in used for parameter in module.parameters()]
    assert used and all((p.grad is not None) == p.requires_grad for p in parameters)
    assert not {id(p) for p in network.parameters()} & {id(p) for p in model.parameters()}


def check_idle_modules_are_frozen(case: Case, model: Model, folder: Path) -> None:
    if not case.has_text:
        return
    model.requires_grad_(False)
    network = case.filled(model)
    network.freeze_idle(model, clip_skip=2)
    frozen = {
        n for n, module in network.by_name.items() if not any(p.requires_grad for p in module.parameters())
    }
    idle = {layer for module in model.idle_text_modules(2) for layer in module.modules()}
    assert frozen == {name for name, module in network.by_name.items() if module.layer in idle}
    assert 0 < len(frozen) < len(network.by_name)
    network.attach()
    predict(model, clip_skip=2).sum().backward()
    without = {n for n, m in network.by_name.items() if all(p.grad is None for p in m.parameters())}
    assert without == frozen


def check_modules_know_where_they_stand(case: Case, model: Model, folder: Path) -> None:
    network, prefix = case.new(model), KINDS[case.kind].prefix
    is_original = KINDS[case.kind].is_original
    points = {module_name(point, prefix, is_original=is_original): point for point in model.attach_points()}
    for name, module in network.by_name.items():
        facts = (module.layer, module.part, module.text_encoder, module.block)
        point = points[name]
        assert facts == (point.module, point.part, point.text_encoder, point.block)
        assert (module.part == "te") == (module.text_encoder is not None)
    by_encoder = network.trained_parameters()
    assert by_encoder.keys() == {None, *range(len(model.text_encoders) if case.has_text else 0)}
    groups = {group["name"]: group for group in network.param_groups({"unet": 1.0, "te": 0.5})}
    rates = {"textencoder": 0.5, "unet": 1.0} if case.has_text else {"unet": 1.0}
    assert {name: group["lr"] for name, group in groups.items()} == rates
    assert [id(p) for p in groups["unet"]["params"]] == [id(p) for p in by_encoder[None]]
    everything = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(everything) == sorted(id(p) for p in network.parameters() if p.requires_grad)


def check_alphas_are_those_of_the_file(case: Case, model: Model, folder: Path) -> None:
    network = case.filled(model, alpha=3.0, arguments=case.linear)
    if KINDS[case.kind].rank is None:
        return
    assert network.alphas() == {3.0}
    without = {key: value for key, value in network.tensors().items() if not key.endswith("alpha")}
    save_tensors(folder / "x.safetensors", without)
    loaded = case.factory.from_file(model, folder / "x.safetensors")
    assert loaded.alphas() == {4.0}  # the rank
    assert {module.scale for module in loaded.by_name.values()} == {1.0}


@torch.no_grad()
def check_norms_are_limited(case: Case, model: Model, folder: Path) -> None:
    network = case.new(model)
    generator = torch.Generator().manual_seed(0)
    for number, parameter in enumerate(network.parameters()):
        parameter.data.normal_(std=0.1 + 0.1 * (number % 4), generator=generator)
    before = _norms(network)
    if type(next(iter(network.by_name.values()))).scale_change is NetworkModule.scale_change:
        with pytest.raises(UserError, match="have no norms"):
            network.limit_norms(0.01)
        return
    limit = float(before.median()) * 1.001  # no module's own: norms round otherwise from factors
    figures = network.limit_norms(limit)
    after = _norms(network)
    assert_close(after, before.clamp_max(limit))
    assert int(figures["max_norm/keys_scaled"]) == int((before > limit).sum()) > 0
    assert_close(figures["max_norm/max_key_norm"], after.max())
    assert_close(figures["norm/avg_key_norm"], after.mean())
    if not case.has_text:
        return
    for module in network.by_name.values():
        module.requires_grad_(module.part == "unet")
    network.limit_norms(limit / 10)
    is_text = torch.tensor([module.part == "te" for module in network.by_name.values()])
    assert torch.equal(_norms(network)[is_text], after[is_text])
    assert (_norms(network)[~is_text] < limit / 10 * 1.001).all()


def check_a_file_is_read_without_a_model(case: Case, model: Model, folder: Path) -> None:
    network, path = case.filled(model), folder / "x.safetensors"
    network.save(path, Saving("safetensors", metadata={"ss_network_dim": "4"}))
    found = read_network(path)
    assert (found.kind, dict(found.unknown), dict(found.metadata)) == (case.kind, {}, {"ss_network_dim": "4"})
    assert found.modules.keys() == network.by_name.keys()
    tensors = {f"{name}.{key}": found.read(name, key) for name, own in found.modules.items() for key in own}
    shapes = {f"{name}.{key}": shape for name, own in found.modules.items() for key, shape in own.items()}
    assert shapes == {key: tuple(tensor.shape) for key, tensor in network.tensors().items()}
    assert all(torch.equal(tensors[key], tensor) for key, tensor in network.tensors().items())
    if KINDS[case.kind].rank is not None:
        assert found.alphas() == {name: float(module.alpha) for name, module in network.by_name.items()}
        assert found.ranks and found.ranks.items() <= {(n, m.rank) for n, m in network.by_name.items()}


def check_a_network_can_be_like_a_file(case: Case, model: Model, folder: Path) -> None:
    first, path = case.filled(model, dim=2), folder / "x.safetensors"
    first.save(path, Saving("safetensors"))
    second = case.new(model, like=path, dim=None, arguments=case.linear)
    assert {key: value.shape for key, value in second.tensors().items()} == {
        key: value.shape for key, value in first.tensors().items()
    }
    assert second.alphas() == first.alphas()
    assert [p.requires_grad for p in second.parameters()] == [p.requires_grad for p in first.parameters()]
    if not case.has_text:
        return
    text_only = case.new(model, like=path, dim=None, arguments=case.linear, parts=("te",))
    assert {module.part for module in text_only.by_name.values()} == {"te"}


def check_what_does_not_fit_is_refused(case: Case, model: Model, folder: Path) -> None:
    network, path, filled = case.new(model, dim=2), folder / "x.safetensors", case.filled(model)
    tensors = filled.tensors()
    others = {key: tensors[key] for key in network.tensors()}
    if any(value.shape != others[key].shape for key, value in network.tensors().items()):  # it has a rank
        with pytest.raises(UserError, match="this network has"):
            network.load_tensors(others, "a.safetensors")
    kind, name = KINDS[case.kind], next(iter(network.by_name))
    nowhere = {f"{kind.prefix}_nowhere.{key}": torch.zeros(2, 2) for key in kind.tensors - {"alpha"}}
    for changed, message in (
        (nowhere, f"have no place in this model, e.g. {kind.prefix}_nowhere"),
        ({"x": torch.zeros(2)}, f"holds no {kind.title} weights"),
    ):
        save_tensors(path, changed)
        with pytest.raises(UserError) as error:
            case.factory.from_file(model, path)
        assert message in str(error.value)
    save_tensors(path, tensors | {f"{name}.x": torch.zeros(2)})
    with hears_warnings() as heard:
        assert case.factory.from_file(model, path).by_name.keys() == filled.by_name.keys()
    assert heard[0].startswith(f"{path}: 1 of its tensors are left out, e.g. {name}.x: ")


def check_arguments_that_are_not_known_are_refused(case: Case, model: Model, folder: Path) -> None:
    case.factory.check_arguments(dict(case.arguments))
    with pytest.raises(UserError, match="--network_args nothing_at_all"):
        case.factory.check_arguments({"nothing_at_all": "1"})


CHECKS: list[Check] = [check for name, check in globals().items() if name.startswith("check_")]


def _of_every_sort(network: Network) -> list[NetworkModule]:
    """One module of each sort of layer and part."""
    found = {(module.part, str(module.layer)): module for module in network.by_name.values()}
    return list(found.values())


@torch.no_grad()
def _output(module: NetworkModule) -> Tensor:
    """What a module's layer gives for a fixed input."""
    layer = module.layer
    shape = (
        (BATCH, layer.in_channels, 8, 8) if isinstance(layer, nn.Conv2d) else (BATCH, 3, layer.in_features)
    )
    return layer(torch.randn(shape, generator=torch.Generator().manual_seed(3)))


def _norms(network: Network) -> Tensor:
    """Of the changes that are limited: those of additive kinds before a decomposition."""
    modules = network.by_name.values()
    deltas = [m.additive_delta() if isinstance(m, AdditiveModule) else m.delta_weight() for m in modules]
    return torch.stack([delta.norm() for delta in deltas]).detach()


def _traces(model: Model) -> dict[str, object]:
    """All that a network may leave on a model."""
    modules = dict(model.named_modules())
    return {
        "names": list(model.state_dict()),
        "modules": list(modules),
        "hooks": {
            name: (len(module._forward_hooks), len(module._forward_pre_hooks))
            for name, module in modules.items()
        },
        "attributes": {name: sorted(vars(module)) for name, module in modules.items()},
        "classes": {name: type(module) for name, module in modules.items()},
        "before_predict": list(model.before_predict),
    }
