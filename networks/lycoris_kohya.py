"""Commands that name `lycoris.kohya`: LyCORIS' algorithms, served by the kinds of networks here.

    --network_module lycoris.kohya --network_args algo=loha conv_dim=4 preset=attn-mlp

Arguments and defaults are LyCORIS': convolutions have a network unless conv_dim is 0, and DoRA's magnitudes
are those of outputs. Files are those of the kinds, which are LyCORIS' own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from library.models.base import Model
from library.network.arguments import READERS, read_values, switch
from library.network.loading import NetworkFactory, load_network_module, open_network
from library.network.network import Network
from library.problems import Problems, UserError, warn

# algo -> the kind that computes it.
ALGORITHMS = {
    "lora": "networks.lora",
    "locon": "networks.lora",
    "loha": "networks.loha",
    "lokr": "networks.lokr",
    "dylora": "networks.dylora",
    "glora": "networks.glora",
    "ia3": "networks.ia3",
    "diag-oft": "networks.diag_oft",
    "boft": "networks.lycoris_boft",
}
_LATER = {"full": "training whole weights", "tlora": "T-LoRA"}
_NEEDS_IT = "needs LyCORIS itself (pip install lycoris-lora)"
DEFAULT_DIM = 4


@dataclass(frozen=True)
class Preset:
    """Which layers get a network.

    convolves: residual and sampling blocks too.
    parts: of the model.
    without: layers that are left out, as a pattern for their paths.
    """

    convolves: bool = False
    parts: frozenset[str] = frozenset({"unet", "te"})
    without: str = ""


PRESETS = {
    "full": Preset(convolves=True),
    "attn-mlp": Preset(),
    "attn-only": Preset(without=r".*(\.ff\.|\.mlp\.|proj_in|proj_out).*"),
    "unet-only": Preset(convolves=True, parts=frozenset({"unet"})),
    "unet-transformer-only": Preset(parts=frozenset({"unet"})),
}
# Other names of arguments, and those that change nothing here.
_OLD_NAMES = {"use_cp": "use_tucker", "use_conv_cp": "use_tucker", "constrain": "constraint"}
_IDLE = ("bypass_mode",)
# Those that are read here; the others are for the kind.
_OWN = {"dropout": READERS["rank_dropout"], "train_norm": switch, "disable_conv_cp": switch}
_TRUE = ("true", "1", "yes")
_ROTATIONS = ("diag-oft", "boft")
_CONVOLUTIONS = ("conv_dim", "conv_alpha")


def check_arguments(arguments: dict[str, str]) -> None:
    """Raises UserError for --network_args that LyCORIS does not know, whose values are wrong, or that no kind
    here can do.
    """
    served = _served(arguments, None, None)
    served.kind.check_arguments(served.arguments)
    warn(f"--network_module lycoris.kohya: {served.algo} is computed by {served.module}")


def create(
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
    """A new network of the kind that algo= names, see its own `create`."""
    served = _served(arguments, dim, alpha)
    chosen = [part for part in parts if part in served.preset.parts]
    if not chosen:
        raise UserError.of("--network_args preset", "is of a part of the model that is not trained")
    return served.kind.create(
        model,
        dim=dim or DEFAULT_DIM,
        alpha=alpha,
        dropout=served.dropout if dropout is None else dropout,
        arguments=served.arguments,
        parts=chosen,
        seed=seed,
        like=like,
    )


def from_file(model: Model, path: Path) -> Network:
    """The network in a file, of whatever kind it is."""
    return open_network(model, path)


@dataclass(frozen=True)
class _Served:
    """What is asked of LyCORIS, as a kind here has it."""

    algo: str
    module: str
    arguments: dict[str, str]
    preset: Preset
    dropout: float | None

    @property
    def kind(self) -> NetworkFactory:
        return load_network_module(self.module)


def _served(arguments: Mapping[str, str], dim: int | None, alpha: float | None) -> _Served:
    """Raises UserError for an algorithm, a preset or a value that there is not."""
    own = {_OLD_NAMES.get(name, name): text for name, text in arguments.items() if name not in _IDLE}
    problems = Problems()
    algo = own.pop("algo", "lora").strip().lower()
    name = own.pop("preset", "full").strip().lower()
    if algo not in ALGORITHMS:
        cause = f"{_LATER[algo]} {_NEEDS_IT}" if algo in _LATER else f"there is no {algo!r}"
        problems.add("--network_args algo", cause, f"choose one of {', '.join(ALGORITHMS)}")
    if name not in PRESETS:
        cause = f"{name!r} is not available"
        problems.add("--network_args preset", cause, f"choose one of {', '.join(PRESETS)}")
    texts = {argument: own.pop(argument) for argument in _OWN if argument in own}
    values = problems.attempt(read_values, texts, _OWN, "lycoris.kohya") or {}
    if values.get("train_norm"):
        problems.add("--network_args train_norm", _NEEDS_IT, "leave it out")
    if "disable_conv_cp" in values:
        own["use_tucker"] = str(not values["disable_conv_cp"])
    problems.raise_if_any()
    preset = PRESETS[name]
    if algo == "dylora" and "block_size" in own:
        own["unit"] = own.pop("block_size")
    _add_convolutions(own, algo, preset, dim, alpha)
    if own.get("dora_wd", "").strip().lower() in _TRUE:
        own.setdefault("wd_on_output", "true")
    if preset.without:
        own.setdefault("exclude_patterns", f"['{preset.without}']")
    return _Served(algo, ALGORITHMS[algo], own, preset, values.get("dropout") or None)


def _add_convolutions(
    own: dict[str, str], algo: str, preset: Preset, dim: int | None, alpha: float | None
) -> None:
    """Convolutions are as large as other layers where nothing else is asked for; 0 switches them off."""
    is_off = own.get("conv_dim", "").strip() == "0"
    if not preset.convolves or is_off or algo == "ia3":
        for name in _CONVOLUTIONS:
            own.pop(name, None)
        return
    own.setdefault("conv_dim", str(dim or DEFAULT_DIM))
    if algo in _ROTATIONS:
        own.pop("conv_alpha", None)  # they have a constraint instead
    else:
        own.setdefault("conv_alpha", str(1.0 if alpha is None else alpha))
