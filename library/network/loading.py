"""Networks come from the dotted path that the user gives; nothing in the library imports a kind."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from library.network.kinds import KINDS
from library.problems import UserError, warn, warn_idle

if TYPE_CHECKING:
    from library.models.base import Model
    from library.network.network import Network
    from library.network.third_party import ThirdPartyModule

# Other programs' modules -> the one that serves what they are asked for where they are not installed.
SERVED_BY = dict.fromkeys(("lycoris.kohya", "lycoris.locon", "locon.locon_kohya"), "networks.lycoris_kohya")
SHOWN = "lllite"  # the kind that has options of its own
DEFAULT = "networks.lora"  # of --network_module; it opens files of any kind
_FUNCTIONS = ("create", "from_file", "check_arguments")


class NetworkFactory(Protocol):
    """What a module such as `networks.lora` has: three functions with these signatures."""

    def check_arguments(self, arguments: dict[str, str]) -> None:
        """Raises UserError for --network_args that the kind does not know or whose values are wrong. Called
        before any model is loaded.
        """

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
        """A new network for a model, not attached yet, that changes nothing yet.

        dim: --network_dim, None: the kind's own.
        alpha: --network_alpha, None: the kind's own; 0 means dim where alpha / dim counts.
        dropout: --network_dropout, the probability of dropping a value inside the network.
        arguments: --network_args by their names.
        parts: which parts of the model get modules: "unet", "te" or both.
        seed: first values depend on it and on a module's name alone.
        like: a file whose layers, ranks and alphas it has instead; not its values.
        """

    def from_file(self, model: Model, path: Path) -> Network:
        """The network in a file for a model, neither attached nor trained. Raises UserError when it does not
        fit.
        """


def load_network_module(path: str) -> NetworkFactory:
    """The module at a dotted path such as `networks.lora`. Raises UserError when there is none or it is no
    network.
    """
    if path in SERVED_BY and not is_installed(path):
        path = SERVED_BY[path]
    where, fix = f"network module {path}", "the LoRA of Atelier is networks.lora"
    if not is_installed(path):
        raise UserError.of(where, "there is no such module", fix)
    module: Any = importlib.import_module(path)  # a user's own one may have any content
    if hasattr(module, "create_network") and not hasattr(module, "create"):
        from library.network.third_party import ThirdPartyModule

        return ThirdPartyModule(path, module)
    missing = [name for name in _FUNCTIONS if not hasattr(module, name)]
    if missing:
        raise UserError.of(where, f"has no {', '.join(missing)}: Atelier cannot use it as a network")
    return module


def is_installed(path: str) -> bool:
    """Whether there is a module at a dotted path."""
    try:
        return importlib.util.find_spec(path) is not None
    except (ImportError, ValueError):
        return False


def open_network(
    model: Model, path: Path, module: str | None = None, arguments: Mapping[str, str] | None = None
) -> Network:
    """The network in a file, for a model. Raises UserError as `from_file`.

    module: what --network_module says; None: nothing. A file says itself of which of our kinds it is, so it
    counts only for networks of users' own.
    arguments: --network_args; our kinds need none, a file says itself what it is.
    """
    from library.network.files import has_whole_changes, kind_in

    if module is not None and not is_ours(module):
        factory = load_network_module(module)
        if arguments and (own := as_third_party(factory)) is not None:
            return own.from_file(model, path, arguments)
        _warn_of_arguments(path, arguments)
        return factory.from_file(model, path)
    _warn_of_arguments(path, arguments)
    row = KINDS[kind_in(path)]
    if module not in (None, DEFAULT, row.module, *SERVED_BY):
        warn(f"{path} is {row.named} and is opened as one, whatever --network_module {module} says")
    network = load_network_module(row.module).from_file(model, path)
    if not row.goes_along and has_whole_changes(path):
        network.add(load_network_module(KINDS["full"].module).from_file(model, path))
    return network


def as_third_party(factory: object) -> ThirdPartyModule | None:
    """The module if it was made for sd-scripts."""
    from library.network.third_party import ThirdPartyModule

    return factory if isinstance(factory, ThirdPartyModule) else None


def _warn_of_arguments(path: Path, arguments: Mapping[str, str] | None) -> None:
    for name in arguments or {}:
        warn_idle(f"--network_args {name}", f"as {path.name} says itself what it is")


def check_network_file(path: Path, module: str | None = None, kind: str | None = None) -> None:
    """Raises UserError, before any model is loaded, for a file that `open_network` could open for none.

    kind: the only one that is wanted, a name in KINDS; None: any.
    """
    from library.network.files import read_network

    if not path.exists():
        raise UserError.of(path, "there is no such file of network weights")
    if module is None or is_ours(module):
        found = read_network(path, kind)
        if kind is None and found.kind == SHOWN:
            cause = f"is {KINDS[SHOWN].named}, which is shown a picture"
            fix = "draw with it by --control_net_lllite_models, train it by train_control_net_lllite.py"
            raise UserError.of(path, cause, fix)


def may_skip_layers(module: str) -> bool:
    """Whether a step may leave some of a network's parameters without a gradient: nobody knows it of modules
    that are not ours.
    """
    return not is_ours(module) or (module in SERVED_BY and is_installed(module))


def is_ours(module: str) -> bool:
    """Whether a module is that of a kind in KINDS, or served by one."""
    return module in SERVED_BY or module in {row.module for row in KINDS.values()}
