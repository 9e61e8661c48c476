"""Network modules made for sd-scripts, by their protocol: `create_network` and what it returns.

LyCORIS' own package is one. Such a network takes the place of each layer's `forward`; here that is put in and
taken out again, so that it attaches and detaches as every network does.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import random
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from library.files import whole_file
from library.models.base import Model
from library.models.saving import Saving
from library.models.weights import load_tensors
from library.network.module_tree import shown_denoiser, shown_text_encoders
from library.network.network import Network
from library.param_groups import ParamGroup
from library.problems import UserError, warn
from library.randomness import derive_seed
from library.wording import one_line

# LyCORIS warns of every class of other models' that this one has not.
_QUIET = {"lycoris.kohya": {"warn_on_unmatched": False}}
_DEFAULT_RATE = 1e-4  # of groups without one, where no part has a rate either


class ThirdPartyNetwork(Network):
    """A network whose modules are its own. Files, strength and figures are as it says itself.

    inner: what `create_network` returned.
    module: the dotted path that messages call it by.
    """

    computes_alone = True

    def __init__(
        self,
        inner: nn.Module,
        trees: Trees,
        module: str,
        *,
        dim: int | None = None,
        alpha: float | None = None,
    ) -> None:
        """trees: with which it was made; it takes the layers' places in them."""
        super().__init__({}, dim=dim, alpha=alpha)
        self.inner, self.module = inner, module
        self._trees = (trees,)  # in a tuple: the model is no child
        before = {layer: vars(layer).get("forward") for layer in trees.layers}
        self._call("apply_to", trees.text, trees.denoiser, *trees.parts)
        after = {layer: vars(layer).get("forward") for layer in trees.layers}
        self._replaced = [(layer, own) for layer, own in after.items() if own is not before[layer]]
        self._before = {layer: before[layer] for layer, _ in self._replaced}
        self._is_attached, self._epoch = True, -1
        self.detach()
        if not self._replaced or not any(True for _ in inner.parameters()):
            raise UserError.of(f"network module {module}", "has nothing for the layers of this model")

    def attach(self) -> None:
        if not self._is_attached:
            for layer, own in self._replaced:
                vars(layer)["forward"] = own
        self._is_attached = True
        super().attach()

    def detach(self) -> None:
        super().detach()
        if self._is_attached:
            for layer, before in self._before.items():
                vars(layer).pop("forward", None)
                if before is not None:
                    vars(layer)["forward"] = before
        self._is_attached = False

    def set_multiplier(
        self, multiplier: float, *, text: float | None = None, blocks: tuple[float, ...] | None = None
    ) -> None:
        """It has one strength: those by part and block are not for modules that nobody knows here."""
        if hasattr(self.inner, "set_multiplier"):
            self._call("set_multiplier", multiplier)
            return
        for module in self.inner.modules():
            if hasattr(module, "multiplier"):
                vars(module)["multiplier"] = multiplier

    def begin_step(self, epoch: int) -> None:
        trees = self._trees[0]
        if epoch != self._epoch:
            self._call("on_epoch_start", trees.text, trees.denoiser)
            self._epoch = epoch
        self._call("on_step_start", trees.text, trees.denoiser)

    def check_merge(self) -> None:
        can = getattr(self.inner, "is_mergeable", lambda: True)()
        if not can or not hasattr(self.inner, "merge_to"):
            raise UserError.of(f"network module {self.module}", "cannot be merged into the model")

    @torch.no_grad()
    def merge(self) -> None:
        self.check_merge()
        self.detach()
        trees, weight = self._trees[0], next(self._trees[0].denoiser.parameters())
        tensors = {key: value.detach() for key, value in self.inner.state_dict().items()}
        self._call("merge_to", trees.text, trees.denoiser, tensors, weight.dtype, weight.device)

    @cached_property
    def _owners(self) -> list[tuple[nn.Module, nn.Module]]:
        """(the layer, the module in its place), where that is one."""
        own = set(self.inner.modules())
        owners = [(layer, getattr(forward, "__self__", None)) for layer, forward in self._replaced]
        return [(layer, module) for layer, module in owners if module in own]

    def freeze_idle(self, model: Model, clip_skip: int | None) -> None:
        idle = {layer for module in model.idle_text_modules(clip_skip) for layer in module.modules()}
        self._idle = {
            parameter for layer, module in self._owners if layer in idle for parameter in module.parameters()
        }
        for parameter in self._idle:
            parameter.requires_grad_(False)

    _idle: Collection[nn.Parameter] = frozenset()

    def param_groups(self, rates: Mapping[str, float]) -> list[ParamGroup]:
        given, names = self._groups(rates)
        groups, default = [], next(iter(rates.values()), _DEFAULT_RATE)
        for number, group in enumerate(given):
            params = [one for one in group["params"] if one not in self._idle]
            rate = group.get("lr")
            rate = default if rate is None else float(rate)
            name = names[number] if number < len(names) else f"group{number}"
            if params and rate:
                groups.append(ParamGroup(params=params, lr=rate, name=name.replace(" ", "_")))
        for parameter in self._idle:  # the network may have turned their gradients on
            parameter.requires_grad_(False)
        return groups

    def _groups(self, rates: Mapping[str, float]) -> tuple[list[dict[str, Any]], list[str]]:
        """As the network gives them: optimizer groups and, maybe, their names."""
        unet, text = rates.get("unet"), [rates[part] for part in ("te", "te2") if part in rates]
        default = next(iter(rates.values()), None)
        several = getattr(self.inner, "prepare_optimizer_params_with_multiple_te_lrs", None)
        prepare = several or getattr(self.inner, "prepare_optimizer_params", None)
        if prepare is None:
            return [{"params": list(self.inner.parameters()), "lr": default}], []
        if len(text) > 1 and several is None and text[0] != text[1]:
            warn(f"{self.module} takes one rate for both text encoders: {text[0]:g}")
        arguments = (text if several else next(iter(text), None), unet, default)
        takes = len(inspect.signature(prepare).parameters)
        found = prepare(*arguments[:takes])
        groups, names = found if isinstance(found, tuple) else (found, [])
        return [_as_group(group) for group in groups], list(names or [])

    def trained_parameters(self) -> dict[int | None, list[nn.Parameter]]:
        found: dict[int | None, list[nn.Parameter]] = {}
        encoders = self._trees[0].layers_by_encoder
        for layer, module in self._owners:
            place = found.setdefault(encoders.get(layer), [])
            place.extend(one for one in module.parameters() if one.requires_grad)
        placed = {one for parameters in found.values() for one in parameters}
        others = [one for one in self.inner.parameters() if one.requires_grad and one not in placed]
        return found | ({None: found.get(None, []) + others} if others else {})

    def check_norms(self) -> None:
        if not hasattr(self.inner, "apply_max_norm_regularization"):
            warn(f"--scale_weight_norms has no effect: {self.module} cannot limit its norms")

    @torch.no_grad()
    def limit_norms(self, limit: float) -> dict[str, Tensor]:
        apply = getattr(self.inner, "apply_max_norm_regularization", None)
        if apply is None:
            return {}
        device = next(self.inner.parameters()).device
        names = ("max_norm/keys_scaled", "norm/avg_key_norm", "max_norm/max_key_norm")
        figures = apply(limit, device)
        return {name: torch.as_tensor(value) for name, value in zip(names, figures, strict=True)}

    def tensors(self) -> dict[str, Tensor]:
        """Exactly what it computes with: what it saves may be folded or rounded."""
        own = [*self.inner.named_parameters(), *self.inner.named_buffers()]
        return {name: value.detach() for name, value in own}

    def file_tensors(self, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        own = {key: value.detach() for key, value in self.inner.state_dict().items()}
        return {key: value.to("cpu", dtype) for key, value in own.items()} if dtype else own

    def load_file(self, path: Path, model: Model) -> None:
        tensors, own = load_tensors(path), self.inner.state_dict()
        unlike = [
            key for key, value in own.items() if key not in tensors or tensors[key].shape != value.shape
        ]
        unlike += sorted(tensors.keys() - own.keys())
        if unlike:
            cause = f"does not fit what {self.module} makes here: {unlike[0]}, of {len(unlike)} such tensors"
            raise UserError.of(path, cause, "use the arguments it was made with, or --dim_from_weights")
        self.inner.load_state_dict(tensors, strict=False)

    def save(self, path: Path, saving: Saving) -> None:
        with whole_file(path) as file:
            # Its writer goes by the suffix.
            whole = file.with_name(f"{file.name}{path.suffix}")
            try:
                self._call("save_weights", str(whole), saving.dtype, dict(saving.metadata or {}))
                whole.replace(file)
            finally:
                whole.unlink(missing_ok=True)

    def _call(self, name: str, *arguments: Any) -> None:
        """A function of the protocol, where the network has it."""
        function = getattr(self.inner, name, None)
        if function is not None:
            function(*arguments)


@dataclass(frozen=True)
class Trees:
    """What a network is shown of a model.

    parts: whether it takes the text encoders' layers, and the U-Net's.
    """

    model: Model
    parts: tuple[bool, bool]

    @cached_property
    def denoiser(self) -> nn.Module:
        return shown_denoiser(self.model)

    @cached_property
    def encoders(self) -> list[nn.Module]:
        return shown_text_encoders(self.model)

    @property
    def text(self) -> nn.Module | list[nn.Module]:
        """One text encoder as such, several as a list."""
        return self.encoders[0] if len(self.encoders) == 1 else self.encoders

    @cached_property
    def layers_by_encoder(self) -> dict[nn.Module, int]:
        """Layers of text encoders -> which encoder's (0-based)."""
        return {layer: number for number, tree in enumerate(self.encoders) for layer in tree.modules()}

    @property
    def layers(self) -> Iterator[nn.Module]:
        """Every layer of all of them."""
        for tree in (self.denoiser, *self.encoders):
            yield from (module for module in tree.modules() if not any(True for _ in module.children()))


class ThirdPartyModule:
    """A module with `create_network`, as a NetworkFactory."""

    def __init__(self, path: str, module: ModuleType) -> None:
        """path: the dotted path that users gave."""
        self.path, self.module = path, module
        if path in _QUIET:
            logging.getLogger("LyCORIS").setLevel(logging.WARNING)

    def check_arguments(self, arguments: dict[str, str]) -> None:
        """Warns of arguments whose names the module's source has nowhere: such modules ignore what they do
        not know.
        """
        words = set(re.findall(r"\w+", inspect.getsource(self.module)))
        for name in arguments.keys() - words:
            close = difflib.get_close_matches(name, words, n=1, cutoff=0.8)
            hint = f"; did you mean {close[0]}?" if close else ""
            warn(f"--network_args {name} has no effect: {self.path} does not know it{hint}")

    def create(
        self,
        model: Model,
        *,
        dim: int | None,
        alpha: float | None,
        dropout: float | None,
        arguments: dict[str, str],
        parts: Collection[str],
        seed: int,
        like: Path | None = None,
    ) -> Network:
        trees = Trees(model, ("te" in parts, "unet" in parts))
        own: dict[str, Any] = _QUIET.get(self.path, {}) | arguments
        if dropout is not None:
            own.setdefault("dropout", dropout)
        shown = (None, trees.text, trees.denoiser)  # None: the VAE, which no network uses
        with _seeded(derive_seed(seed, "network")), self._refusals():
            if like is not None:
                inner, _ = self.module.create_network_from_weights(1.0, str(like), *shown, **own)
            else:
                alpha = 1.0 if alpha is None else alpha
                inner = self.module.create_network(1.0, dim, alpha, *shown, neuron_dropout=dropout, **own)
            network = ThirdPartyNetwork(inner, trees, self.path, dim=dim, alpha=alpha)
        if hasattr(inner, "prepare_grad_etc"):
            inner.prepare_grad_etc(trees.text, trees.denoiser)
        return network

    def from_file(self, model: Model, path: Path, arguments: Mapping[str, str] | None = None) -> Network:
        """arguments: --network_args, for the module."""
        trees = Trees(model, (True, True))
        shown = (None, trees.text, trees.denoiser)
        with self._refusals():
            create = self.module.create_network_from_weights
            made = create(1.0, str(path), *shown, for_inference=True, **arguments or {})
        network = ThirdPartyNetwork(made[0], trees, self.path)
        made[0].load_state_dict(made[1], strict=False)
        network.requires_grad_(False)
        return network

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Context manager: what the module says of arguments or files it cannot use is said as such."""
        try:
            yield
        except (ValueError, AssertionError, NotImplementedError) as error:
            cause = f"refused: {one_line(str(error)) or type(error).__name__}"
            raise UserError.of(f"network module {self.path}", cause) from error


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Context manager: global generators, which such modules draw from, begin at a seed; after it they are as
    they were.
    """
    state = random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(state)


def _as_group(group: dict[str, Any]) -> dict[str, Any]:
    """With a list of parameters: some modules give them by name."""
    params: Iterable[nn.Parameter] = group["params"]
    return group | {"params": list(params.values() if isinstance(params, Mapping) else params)}
