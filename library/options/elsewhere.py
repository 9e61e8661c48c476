"""The options of all commands, to tell a command that does not have one where it belongs."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil

from library.options.fields import OptionSpec, specs_of
from library.options.unavailable import REFUSED

# Section classes that only some commands have -> those commands.
_COMMANDS = {
    "NetworkOptions": "train_network.py and sdxl_train_network.py",
    "CheckpointOptions": "train_db.py, fine_tune.py and sdxl_train.py",
    "PartOptions": "train_db.py and fine_tune.py",
    "FineTuneOptions": "fine_tune.py and sdxl_train.py",
    "DreamBoothOptions": "train_db.py",
    "PivotalOptions": "train_network.py and sdxl_train_network.py",
    "WordOptions": "train_textual_inversion.py and train_network.py",
    "TextualInversionOptions": "train_textual_inversion.py and sdxl_train_textual_inversion.py",
    "ControlNetOptions": "train_control_net.py and sdxl_train_control_net.py",
    "ControlRateOptions": "sdxl_train_control_net.py",
    "SliderOptions": "train_leco.py and sdxl_train_leco.py",
    "SliderNetworkOptions": "train_network.py and sdxl_train_network.py",
    "SliderDataOptions": "the training commands",
    "LLLiteOptions": "train_control_net_lllite.py and sdxl_train_control_net_lllite.py",
    "TwoEncodersOptions": "sdxl_train.py",
    "BlockOptions": "sdxl_train.py",
}
_TRAINING = "the training commands"
_DRAWING = "gen_img.py, gen_img_diffusers.py and sdxl_gen_img.py"


def commands_with(name: str) -> str:
    """The trainers or generators that have an option of this name, as a phrase; "" if none has."""
    if name not in every_option():
        return ""
    for section, specs in _sections().items():
        if "tools" not in section.__module__ and any(spec.name == name for spec in specs):
            file = section.__module__.rpartition(".")[2]
            is_drawing = file.startswith(("generation", "drawing")) and "Preview" not in section.__name__
            return _COMMANDS.get(section.__name__) or (_DRAWING if is_drawing else _TRAINING)
    return ""


@functools.cache
def every_option() -> frozenset[str]:
    """The names of the options of all commands, with those that are not available."""
    names = {spec.name for specs in _sections().values() for spec in specs}
    return frozenset({*names, *REFUSED})


@functools.cache
def _sections() -> dict[type, list[OptionSpec]]:
    """Every section class of this folder, with its options."""
    from library import options

    modules = [
        importlib.import_module(f"{options.__name__}.{m.name}")
        for m in pkgutil.iter_modules(options.__path__)
    ]
    classes = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    specs = {section: specs_of(section) for section in classes if dataclasses.is_dataclass(section)}
    return {section: found for section, found in specs.items() if found}
