"""What a network is: modules beside a frozen model's layers, trained, merged, saved and loaded as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from library.models.base import Condition, Model
from library.models.casting import cast_together
from library.models.saving import Saving
from library.models.shared_input import SharedInput
from library.models.weights import save_tensors
from library.network.block_weights import weight_of
from library.network.files import has_whole_changes, kind_in
from library.network.kinds import KINDS
from library.network.matching import WHOLE_CHANGES, MatchedFile, check_names, fit_shape, read_for
from library.network.module import NetworkModule
from library.network.rates import Rates
from library.network.together import Together, groups_of
from library.param_groups import ParamGroup
from library.problems import UserError, warn

RESIZE = "python networks/resize_lora.py"
TITLES = {"unet": "U-Net", "te": "text encoder"}


class Network(nn.Module):
    """A network of any kind. Its modules hook onto the model's layers; the model knows nothing of it.

    by_name: its modules by the names that its file has for them.
    dim, alpha: of all modules without settings of their own; None where there is no such number.
    computes_alone: whether it looks after the types that it computes in by itself, under autocast.
    kind: the kind of its files, a name in KINDS; None for a kind that reads its files by itself.
    needs_hint: whether it looks at the hint of a condition.
    block_weights: how strongly each block counts besides, see `block_weights.py`; none: alike.
    """

    computes_alone = False
    needs_hint: ClassVar[bool] = False

    def __init__(
        self,
        modules: Mapping[str, NetworkModule],
        *,
        dim: int | None,
        alpha: float | None,
        rates: Rates | None = None,
        kind: str | None = None,
        model: Model | None = None,
    ) -> None:
        """model: what it is for; a network that overrides `before_forward` needs it."""
        super().__init__()
        self.by_name = dict(modules)
        self.registered = nn.ModuleDict(modules)  # for torch, which looks into no dict
        self.dim, self.alpha, self.rates, self.kind = dim, alpha, rates or Rates(), kind
        assert model is not None or type(self).before_forward is Network.before_forward
        self._together: list[Together] = []
        self.block_weights: tuple[float, ...] = ()
        self._before_predict = [] if model is None else model.before_predict  # the model is no child

    def attach(self) -> None:
        """From now on the model computes with this network."""
        for module in self.by_name.values():
            module.attach()
        if self.before_forward not in self._before_predict:
            self._before_predict.append(self.before_forward)

    def detach(self) -> None:
        """Take it off again; no trace is left on the model."""
        for module in self.by_name.values():
            module.detach()
        if self.before_forward in self._before_predict:
            self._before_predict.remove(self.before_forward)

    def before_forward(self, t: Tensor, condition: Condition) -> None:
        """Called before every prediction of the model while attached, in training and in use alike.

        Networks that depend on the timesteps t (batch,) or on the condition override it. What it sets on
        modules must stay until the next call: checkpointed layers run again in the backward pass.
        """

    def add(self, other: Network) -> None:
        """Take in the modules of another network, which may stand at the same layers."""
        modules = {f"{name}_{other.kind}": module for name, module in other.by_name.items()}
        self.by_name |= modules
        self.registered.update(modules)

    def begin_step(self, epoch: int) -> None:
        """Called before the loss of each batch of training, with the epoch that it belongs to."""

    def set_multiplier(
        self, multiplier: float, *, text: float | None = None, blocks: tuple[float, ...] | None = None
    ) -> None:
        """How strongly the network counts; 1 is as trained, 0 is off.

        text: in text encoders, where that differs.
        blocks: how strongly it counts in each block besides, from now on, see `block_weights`; none: alike.
        """
        self.block_weights = self.block_weights if blocks is None else blocks
        for name, module in self.by_name.items():
            own = text if text is not None and module.part == "te" else multiplier
            own *= weight_of(name, self.block_weights) if self.block_weights else 1
            if module.multiplier != own:  # setting an attribute of 722 modules takes a millisecond
                module.multiplier = own

    def cast_for_step(self, dtype: torch.dtype) -> None:
        """Let modules compute with copies of their weights in the type that the model computes in, made all
        at once. Gradients reach the weights in their own type. For one step: weights change after it.
        """
        together = [group for group in self._together if group.may_compute()]
        joined = {module for group in together for module in group.modules}
        alone = [one for one in self.by_name.values() if one.follows_dtype and one not in joined]
        users: list[Together | NetworkModule] = [*together, *alone]
        weights = [user.computed_with() for user in users]
        copies = iter(cast_together([one for own in weights for one in own], dtype))
        for user, own in zip(users, weights, strict=True):
            user.use_copies([next(copies) for _ in own])

    def forget_casts(self) -> None:
        """Let modules compute with their weights as they are now."""
        users: list[Together | NetworkModule] = [*self._together, *self.by_name.values()]
        for user in users:
            user.use_copies(())

    def join(self, shared: Iterable[SharedInput]) -> None:
        """From now on modules at layers that share their input compute together in steps, where they can."""
        self._together = groups_of(shared, self.by_name.values())

    def merge(self) -> None:
        """Make it part of the model's weights; the network is detached after that. Raises UserError, with the
        model as it was, when one of its modules is no change of weights.
        """
        for module in self.by_name.values():
            module.check_merge()
        for module in self.by_name.values():
            module.merge()
        self.detach()

    def freeze_idle(self, model: Model, clip_skip: int | None) -> None:
        """Modules whose layers' outputs are not used are not trained: they would get no gradients."""
        idle = {layer for module in model.idle_text_modules(clip_skip) for layer in module.modules()}
        for module in self.by_name.values():
            if all(point.module in idle for point in module.points):
                module.requires_grad_(False)

    def param_groups(self, rates: Mapping[str, float]) -> list[ParamGroup]:
        """Optimizer groups of what is trained. rates: of each part of the model ("unet", "te", "te2") it has,
        as of `Rates.groups`.
        """
        return self.rates.groups(self.by_name.values(), rates)

    def trained_parameters(self) -> dict[int | None, list[nn.Parameter]]:
        """What is trained, by the (0-based) text encoder it is in; None: in the U-Net."""
        found: dict[int | None, list[nn.Parameter]] = {}
        for module in self.by_name.values():
            trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
            found.setdefault(module.text_encoder, []).extend(trained)
        return found

    def check_norms(self) -> None:
        """Raises UserError when the norms of its modules cannot be limited."""
        for module in self.by_name.values():
            module.check_norms()

    @torch.no_grad()
    def limit_norms(self, limit: float) -> dict[str, Tensor]:
        """Max-norm regularization: shrink the changes of trained modules whose norm is larger. Returns
        figures for logs, scalars on the device.
        """
        modules = [m for m in self.by_name.values() if any(p.requires_grad for p in m.parameters())]
        norms = torch.stack([module.change_norm() for module in modules])  # (modules,)
        # A number / a tensor is the number times a reciprocal: limit / limit would not always be 1.
        ratios = torch.full_like(norms, limit) / norms.clamp_min(limit)
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

    def tensors(self) -> dict[str, Tensor]:
        """What the network consists of, by the keys of its file: `<module>.<tensor>`. Not copies."""
        return {
            f"{name}.{key}": value
            for name, module in self.by_name.items()
            for key, value in module.state_dict().items()
        }

    def file_tensors(self, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """The same in the shapes that its file has. Not copies, unless their dtype changes.

        dtype: of every tensor; None keeps theirs.
        """
        own = {
            f"{name}.{key}": value
            for name, module in self.by_name.items()
            for key, value in module.file_tensors().items()
        }
        return {key: value.to("cpu", dtype) for key, value in own.items()} if dtype else own

    def load_tensors(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Copy values in. Raises UserError naming the source when names or shapes do not fit."""
        own = self.tensors()
        check_names(own, tensors, source)
        for key, value in own.items():
            given = fit_shape(tensors[key], value.shape)
            if given is None:
                raise UserError.of(
                    source,
                    f"{key} is {tuple(tensors[key].shape)}, this network has {tuple(value.shape)}",
                    self._advice(key, tensors[key], source),
                )
            value.copy_(given)
        for module in self.by_name.values():
            module.took_values()

    def _advice(self, key: str, given: Tensor, source: str) -> str:
        """What to do about a tensor of another shape."""
        rank = None if self.kind is None else KINDS[self.kind].rank
        own = self.tensors()[key].shape
        if rank is not None and key.endswith(f".{rank}"):
            conv = f" --new_conv_rank {own[0]}" if len(own) == 4 else ""
            words = f"--model {source} --new_rank {self.dim or own[0]}{conv} --save_to FILE"
            has = f"its rank is {given.shape[0]}: give that, or --dim_from_weights"
            return f"{has}, or resize it: {RESIZE} {words}"
        return "use the dimensions it was made with"

    def load_file(self, path: Path, model: Model) -> None:
        """Copy in the values of a file of a network for this model. Raises UserError when it does not fit.

        What it holds for a part of the model in which this network has no modules is skipped with a warning.
        """
        if self.kind is not None:
            self._check_kind(path)
        file, parts = read_for(model, path, self.kind), {module.part for module in self.by_name.values()}
        taken = [name for name, point in file.points.items() if point.part in parts]
        if skipped := {TITLES[point.part] for point in file.points.values() if point.part not in parts}:
            warn(f"{path.name}: its weights of the {skipped.pop()} are left out: no network is trained there")
        if self.kind is not None and not KINDS[self.kind].goes_along and has_whole_changes(path):
            warn(f"{path.name}: its {WHOLE_CHANGES} are left out: none are trained here")
        self.take(file, taken, str(path))

    def take(self, file: MatchedFile, names: Iterable[str], source: str) -> None:
        """Copy in what a file has for modules of these names. Raises UserError as `load_tensors`."""
        tensors: dict[str, Tensor] = {}
        for name in names:
            own, module = file.modules[name], self.by_name.get(name)
            state = own if module is None else module.from_file_tensors(own)
            tensors |= {f"{name}.{key}": value for key, value in state.items()}
        self.load_tensors(tensors, source)

    def _check_kind(self, path: Path) -> None:
        """Raises UserError, with what to do, for a file of another kind."""
        found, own = KINDS[kind_in(path)], KINDS[self.kind or ""]
        if found is own:
            return
        fix = f"give --network_module {found.module}"
        if own is KINDS["lora"]:
            fix += f", or make it one: {RESIZE} --model {path} --new_rank {self.dim or 4} --save_to FILE"
        raise UserError.of(path, f"is {found.named}, the network that is trained is {own.named}", fix)

    def save(self, path: Path, saving: Saving) -> None:
        """Write the file whole."""
        save_tensors(path, self.file_tensors(saving.dtype), dict(saving.metadata or {}))
