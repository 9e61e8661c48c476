"""Fit what was found to the options of a trainer: sort out the rest, name it, and give values their types."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from library.migration.found import Found, Table
from library.options.fields import OptionSpec, sections_of, specs_of
from library.options.foreign_config import IGNORED, is_not_set
from library.options.unavailable import REFUSED, asks_for
from library.options.unset import asks_nothing, is_unset
from library.secrets import hide_tokens

_SECRET = re.compile(r"(.*[_-])?(token|api[_-]?key|secret|password|passwd)", re.I)
_ZERO_IS_NOTHING = ("max_timestep", "noise_offset", "adaptive_noise_scale", "multires_noise_iterations")
# Written by programs for their own pages.
_FOR_FILES_ONLY = ("config_file", "output_config")


def fit(found: Found, run_type: type, other_runs: Iterable[type]) -> dict[str, Table]:
    """The options to write: a table a section of the trainer's Run. Adds what is left out to the lists of
    `found`.

    other_runs: the other trainers' Runs, to tell their options from unknown ones.
    """
    sections = sections_of(run_type)
    by_name = {
        name: (section, spec) for section, kind in sections.items() for name, spec in _names(kind).items()
    }
    elsewhere = {name for run in other_runs for kind in sections_of(run).values() for name in _names(kind)}
    tables: dict[str, Table] = {section: {} for section in sections}
    _choose_attention(found)
    for key, value in found.options.items():
        name = _full_name(key, by_name)
        if is_secret(key):
            if not is_unset(value):
                _keep_secret(found, key, str(value))
        elif name in by_name:
            section, spec = by_name[name]
            _put(found, tables[section], key, spec, value)
        elif not asks_nothing(value) and not is_not_set(key, value):
            _leave_out(found, key, value, elsewhere)
    return {section: table for section, table in tables.items() if table}


def is_secret(key: str) -> bool:
    """Whether a key's name says that its value must not be copied."""
    return _SECRET.fullmatch(key) is not None and key != "num_vectors_per_token"


def _keep_secret(found: Found, name: str, value: str) -> None:
    if not value.startswith(("$", "%", "{")) and value != "True":  # a variable is no secret
        found.secrets.append(value)
    found.missing.append(f"{name} is not copied: keep tokens in the environment, or log in")


def _without_secrets(found: Found, key: str, value: Any) -> Any:
    """An option's value without arguments that are tokens or passwords: api_key=... among the others, and
    what looks like one.
    """
    if isinstance(value, str) and hide_tokens(value) != value:
        _keep_secret(found, f"what looks like a token in {key}", value)
        return None
    if not isinstance(value, list):
        return value
    kept = []
    for word in value:
        name, _, secret = str(word).partition("=")
        if is_secret(name) and secret:
            _keep_secret(found, f"{name} in {key}", secret)
        elif hide_tokens(str(word)) != str(word):
            _keep_secret(found, f"what looks like a token in {key}", secret or name)
        else:
            kept.append(word)
    return kept


def _names(section: type) -> dict[str, OptionSpec]:
    specs = [spec for spec in specs_of(section) if not spec.positional]
    return {name.removeprefix("--"): spec for spec in specs for name in (spec.flag, *spec.aliases)}


def _full_name(key: str, known: Mapping[str, object]) -> str:
    """argparse, which sd-scripts uses, takes abbreviations that only one option begins with."""
    longer = [name for name in known if name.startswith(key)]
    return longer[0] if key not in known and len(longer) == 1 and len(key) > 3 else key


def _put(found: Found, table: Table, key: str, spec: OptionSpec, raw: Any) -> None:
    value = _without_secrets(found, key, as_typed(spec, raw))
    if is_unset(value) or is_not_set(spec.name, value) or (spec.name in _ZERO_IS_NOTHING and value == 0):
        return
    try:
        read = spec.read(value)
    except (ValueError, TypeError) as error:
        found.missing.append(f"{key} is left out: {error}")
        return
    if key != spec.name:
        found.changes.append(f"{key} is called {spec.name}")
    if spec.default is dataclasses.MISSING or read != spec.default:
        table[spec.name] = value


def as_typed(spec: OptionSpec, raw: Any) -> Any:
    """A raw value as TOML writes it for this option: a switch from 0 or 1, a number from a text, a list from
    a text of several words. What cannot be converted stays as it is.
    """
    if spec.is_switch and not isinstance(raw, (dict, list)):
        return str(raw).lower() in ("true", "1", "1.0", "yes", "on")
    if spec.is_list and isinstance(raw, dict):  # LoRA_Easy_Training_Scripts writes arguments as a table
        return [f"{key}={_plain(str(value))}" for key, value in raw.items()]
    if spec.is_list and isinstance(raw, str):
        return (
            [_plain(word) for word in raw.split()]
            if spec.item_type is str
            else [_number(w) for w in raw.split()]
        )
    if spec.is_list and isinstance(raw, list):
        return [word for word in raw if word not in ("", None)]
    if isinstance(raw, list) and spec.convert is None and len(raw) > 1 and spec.item_type not in (int, float):
        return " ".join(map(str, raw))  # a path with blanks that nobody quoted
    return _number(raw) if spec.plain_type in (int, float) or spec.convert else raw


def _number(raw: Any) -> Any:
    if isinstance(raw, str):
        for kind in (int, float):
            try:
                return kind(raw)
            except ValueError:
                continue
    return raw


def _plain(word: str) -> str:
    return word.replace('"', "").replace("'", "")


def _choose_attention(found: Found) -> None:
    """One kind of attention; xformers becomes torch's own, which needs no package and is as fast."""
    on = [
        name
        for name in ("mem_eff_attn", "xformers", "sdpa")
        if str(found.options.get(name)).lower() in ("true", "1")
    ]
    for name in on[1:]:
        found.options.pop(name)
        found.idle.append(name)
    if on[:1] == ["xformers"]:
        del found.options["xformers"]
        found.changes.append(
            "xformers becomes torch's own attention, the default: as fast, and it needs no package"
        )
    elif on[:1] == ["sdpa"]:
        del found.options["sdpa"]  # the default


def _leave_out(found: Found, key: str, value: object, elsewhere: set[str]) -> None:
    refusal = REFUSED.get(key)
    if refusal is not None:
        if asks_for(value, refusal.default):
            found.missing.append(f"{key}: {refusal.cause}")
    elif key in IGNORED or key in elsewhere or key in _FOR_FILES_ONLY:
        found.idle.append(key)
    else:
        found.missing.append(f"{key} is not known, and left out")
