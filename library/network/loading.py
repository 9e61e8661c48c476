"""Networks come from the dotted path the user gives; nothing in the library names one.

A network module has two functions:

    create(model, *, dim, alpha, dropout, arguments, parts, seed, like) -> Network
    from_file(model, path) -> Network

and `check_arguments(arguments)`, which raises UserError for --network_args it does not know.
A Network is one as library/network/base.py has it.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from library.problems import UserError

_FUNCTIONS = ("create", "from_file", "check_arguments")


def load_network_module(path: str) -> ModuleType:
    """The module at a dotted path such as `networks.lora`. Raises UserError when there is none or it is no
    network.
    """
    try:
        found = importlib.util.find_spec(path)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise UserError.of(
            f"network module {path}", "there is no such module", "the LoRA of Atelier is networks.lora"
        )
    module = importlib.import_module(path)
    missing = [name for name in _FUNCTIONS if not hasattr(module, name)]
    if missing:
        raise UserError.of(
            f"network module {path}", f"has no {', '.join(missing)}: Atelier cannot use it as a network"
        )
    return module
