"""What every network shares: its small modules stand beside layers of a model and add to what those give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from library.models.base import AttachPoint, Model
from library.models.saving import Saving
from library.models.weights import load_tensors, save_tensors
from library.network.rates import Rates, part_of
from library.problems import UserError, warn

TITLES = {"unet": "U-Net", "te": "text encoder"}


class NetworkModule(nn.Module):
    """One layer's addition: subclasses give `add_to` and `delta_weight`. The layer itself is not a child."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = (
            layer,
        )  # in a tuple, so that the frozen layer is not registered as part of the network
        self._hook: torch.utils.hooks.RemovableHandle | None = None
        self.multiplier = 1.0
        self.block: int | None = None  # the layer's, in the U-Net

    @property
    def layer(self) -> nn.Module:
        return self._layer[0]

    def attach(self) -> None:
        """From now on the layer's output is its own plus this module's."""
        if self._hook is None:
            self._hook = self.layer.register_forward_hook(lambda _, inputs, out: self.add_to(out, inputs[0]))

    def detach(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def add_to(self, out: Tensor, x: Tensor) -> Tensor:
        """`out`, the layer's output for x, with this module's addition. Shapes as the layer's."""
        raise NotImplementedError

    def delta_weight(self) -> Tensor:
        """What the addition is worth as a change of the layer's weight, at multiplier 1; the weight's shape,
        float32.
        """
        raise NotImplementedError

    def plus_parameters(self) -> list[nn.Parameter]:
        """Those that learn faster with LoRA+."""
        return []

    def change_norm(self) -> Tensor:
        """The Frobenius norm of `delta_weight`; a float32 scalar on the device."""
        return self.delta_weight().norm()

    def scale_change(self, factor: Tensor) -> None:
        """Multiply `delta_weight` by a scalar, by changing what is trained."""
        raise NotImplementedError

    def took_values(self) -> None:
        """Called after values were loaded: numbers kept beside tensors are read anew."""

    @torch.no_grad()
    def merge(self) -> None:
        """Add the change to the layer's weight and stop standing beside it."""
        self.detach()
        weight = self.layer.weight
        weight.copy_(weight.float() + self.delta_weight().to(weight.device) * self.multiplier)


class Network(nn.Module):
    """A set of network modules by name. Names are the file's: `lora_unet_down_blocks_0_..._to_q`."""

    def __init__(
        self,
        modules: dict[str, NetworkModule],
        *,
        dim: int | None,
        alpha: float | None,
        rates: Rates | None = None,
    ) -> None:
        """dim, alpha: of all modules without settings of their own; None when there is no such number."""
        super().__init__()
        self.by_name = nn.ModuleDict(modules)
        self.dim, self.alpha, self.rates = dim, alpha, rates or Rates()

    def attach(self) -> None:
        for module in self.by_name.values():
            module.attach()

    def detach(self) -> None:
        for module in self.by_name.values():
            module.detach()

    def set_multiplier(self, multiplier: float) -> None:
        """How strongly the network counts; 1 is as trained, 0 is off."""
        for module in self.by_name.values():
            module.multiplier = multiplier

    def merge(self) -> None:
        """Add everything to the model's weights; the network is detached after that."""
        for module in self.by_name.values():
            module.merge()

    def freeze_idle(self, model: Model, clip_skip: int | None) -> None:
        """What stands beside layers that count for nothing is not trained; it stays as it is."""
        idle = {layer for module in model.idle_text_modules(clip_skip) for layer in module.modules()}
        for module in self.by_name.values():
            if module.layer in idle:
                module.requires_grad_(False)

    def param_groups(self, rates: Mapping[str, float]) -> list[dict[str, Any]]:
        """Optimizer groups of what is trained. rates: of each part of the model ("unet", "te") it has."""
        return self.rates.groups(dict(self.by_name.items()), rates)

    @torch.no_grad()
    def limit_norms(self, limit: float) -> dict[str, Tensor]:
        """Max-norm regularization: shrink the changes of trained modules whose norm is larger. Returns
        figures for logs, scalars on the device.
        """
        modules = [m for m in self.by_name.values() if any(p.requires_grad for p in m.parameters())]
        norms = torch.stack([module.change_norm() for module in modules])
        ratios = limit / norms.clamp_min(limit)
        for module, ratio in zip(modules, ratios, strict=True):
            module.scale_change(ratio)
        limited = norms * ratios
        return {
            "max_norm/keys_scaled": (ratios != 1).sum(),
            "max_norm/max_key_norm": limited.max(),
            "norm/avg_key_norm": limited.mean(),
        }

    def alphas(self) -> set[float]:
        """The different alphas of its modules."""
        return {float(value) for key, value in self.tensors().items() if key.endswith(".alpha")}

    def tensors(self, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """The network as its file holds it: `<name>.<tensor>`. dtype: of every tensor, None keeps theirs."""
        own = {key.removeprefix("by_name."): value for key, value in self.state_dict().items()}
        return {key: value.to("cpu", dtype) for key, value in own.items()} if dtype else own

    def load_tensors(self, tensors: dict[str, Tensor], source: str) -> None:
        """Take values in. Raises UserError naming the source when names or shapes do not fit."""
        own = self.tensors()
        check_names(own, tensors, source)
        for key, value in own.items():
            given = fit_shape(tensors[key], value.shape)
            if given is None:
                fix = (
                    f"its rank is {tensors[key].shape[0]}: give that, or --dim_from_weights"
                    if "down" in key
                    else "use the dimensions it was made with"
                )
                raise UserError.of(
                    source,
                    f"{key} is {tuple(tensors[key].shape)}, this network has {tuple(value.shape)}",
                    fix,
                )
            value.copy_(given)
        for module in self.by_name.values():
            module.took_values()

    def load_file(self, path: Path, model: Model) -> None:
        """Take in the values of a file of a network for this model. Raises UserError when it does not fit.

        What it holds of a part of the model that this network has nothing for is left out with a warning.
        """
        tensors, parts = read_for(model, path), {part_of(name) for name in self.by_name}
        own = {key: tensor for key, tensor in tensors.items() if part_of(key) in parts}
        if left := {TITLES[part_of(key)] for key in tensors.keys() - own.keys()}:
            warn(f"{path.name}: its weights of the {left.pop()} are left out: no network is trained there")
        self.load_tensors(own, str(path))

    def save(self, path: Path, saving: Saving) -> None:
        """Write the file whole."""
        save_tensors(path, self.tensors(saving.dtype), dict(saving.metadata or {}))


def module_name(point: AttachPoint) -> str:
    """The name of a network module in its file: prefix and path, dots as underscores."""
    return f"lora_{point.prefix}_{point.path}".replace(".", "_")


def renamed(tensors: dict[str, Tensor], points: Iterable[AttachPoint]) -> dict[str, Tensor]:
    """A network file's tensors under the names of `module_name`, also where it has a point's other path."""
    others = {
        f"lora_{point.prefix}_{point.other_path}".replace(".", "_"): module_name(point)
        for point in points
        if point.other_path is not None
    }
    found = {}
    for key, tensor in tensors.items():
        name, dot, rest = key.partition(".")
        found[others.get(name, name) + dot + rest] = tensor
    return found


def read_for(model: Model, path: Path) -> dict[str, Tensor]:
    """The tensors of a LoRA file for this model, under the names of `module_name`. Raises UserError when it
    cannot be read or does not fit the model.
    """
    points = model.attach_points()
    tensors = renamed(read_network_file(path), points)
    known, names = {module_name(point) for point in points}, {key.split(".", 1)[0] for key in tensors}
    check_names(known & names, names, str(path))
    return tensors


def read_network_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a LoRA file; an alpha that is missing is the rank, so that the scale is 1.

    Raises UserError when the file cannot be read, or holds something else or more.
    """
    tensors = load_tensors(path)
    names = {key.split(".", 1)[0] for key in tensors if ".lora_" in key}
    if not names:
        raise UserError.of(path, "holds no LoRA weights")
    expected = {f"{name}.lora_{half}.weight" for name in names for half in ("down", "up")}
    check_names(expected, (key for key in tensors if not key.endswith(".alpha")), str(path))
    for name in names:
        rank = tensors[f"{name}.lora_down.weight"].shape[0]
        tensors.setdefault(f"{name}.alpha", torch.tensor(float(rank)))
    return tensors


def check_names(own: Iterable[str], given: Iterable[str], source: str) -> None:
    """Raises UserError when two sets of tensor names differ, naming one example of each kind."""
    own, given = set(own), set(given)
    missing, foreign = sorted(own - given), sorted(given - own)
    if foreign:
        raise UserError.of(
            source, f"{len(foreign)} of its tensors have no place in this model, e.g. {foreign[0]}"
        )
    if missing:
        raise UserError.of(source, f"{len(missing)} tensors are missing, e.g. {missing[0]}")


def fit_shape(tensor: Tensor, shape: torch.Size) -> Tensor | None:
    """The tensor in this shape if only trailing sides of 1 differ (a 1x1 convolution stored as a matrix), or
    None.
    """
    if tensor.shape == shape:
        return tensor
    same = [side for side in tensor.shape if side != 1] == [side for side in shape if side != 1]
    return (
        tensor.reshape(shape) if same and tensor.numel() == shape.numel() and tensor.ndim in (2, 4) else None
    )


def targets(model: Model, parts: Iterable[str], parents: Iterable[str]) -> dict[str, AttachPoint]:
    """The model's attach points inside the given parts and parent classes, by module name."""
    parts, parents = set(parts), set(parents)
    chosen = (point for point in model.attach_points() if point.part in parts and point.parent in parents)
    return {module_name(point): point for point in chosen}
