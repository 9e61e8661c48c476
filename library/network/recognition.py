"""What a file that is given as a network holds: a kind of network, by its keys, or something else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from library.network.kinds import KINDS
from library.network.spellings import Spelled
from library.problems import UserError

# Kinds of network that no row of KINDS is about, by a key of theirs.
_OTHER_KINDS = {
    r"\.oft_diag$": "is an OFT of LyCORIS' first kind",
    r"\.vera_lambda": "is a VeRA",
}
# What a file is by one of its names, where that is no network or none of a kind that is known; the first that
# fits counts.
_OTHERS = {
    r"^lllite_": "is a ControlNet-LLLite",
    r"^lora_controlnet": "is a Control-LoRA",
    r"^bundle_emb\.": "holds embeddings alone, no network",
    **_OTHER_KINDS,
    r"^(model\.diffusion_model|conditioner\.embedders|cond_stage_model)\.": "is a checkpoint, not a network",
    r"input_hint_block\.|controlnet_cond_embedding\.|zero_convs\.": "is a ControlNet, not a network",
    r"^(emb_params|emp_params|string_to_param|clip_[lgh]$)": "is a textual inversion, not a network",
    r"^(first_stage_model|encoder\.down(_blocks)?)\.": "is a VAE, not a network",
    r"^(double|joint)_blocks\.": "is a model of another family, not a network",
    r"^(down_blocks|input_blocks)\.": "is a U-Net, not a network",
    r"^text_model\.": "is a text encoder, not a network",
    r"^layer_structure$": "is a hypernetwork",
}


def kind_of(path: Path, keys: Iterable[str], spelled: Mapping[str, Spelled], wanted: str | None) -> str:
    """The kind of a file with these keys, a name in KINDS.

    spelled: the keys that are tensors of kinds, as they are read.
    wanted: the only kind that will do; None: any.

    Raises UserError when it is of another kind, of none that is known, or mixes kinds.
    """
    told = {key: kinds for key, found in spelled.items() if (kinds := _kinds_telling(found))}
    if wanted is not None and KINDS[wanted].goes_along and any(wanted in kinds for kinds in told.values()):
        return wanted
    told = {key: kinds for key, kinds in told.items() if not _go_along(kinds)} or told
    fitting = set(KINDS).intersection(*told.values()) if told else set()
    if wanted is not None and not any(wanted in kinds for kinds in told.values()):
        cause = f"holds no {KINDS[wanted].title} weights"
        raise UserError.of(path, cause if fitting else _what(set(keys)) or cause, _advice(fitting))
    if not told:
        example = next(iter(keys), "nothing at all")
        cause = _what(set(keys)) or f"holds no network of a kind that is known here; it has e.g. {example}"
        raise UserError.of(path, cause)
    if not fitting:
        raise UserError.of(path, f"mixes kinds of networks: {_mixture(told)}")
    rest = {key for key in keys if key not in spelled}
    if other := _what(rest, _OTHER_KINDS):
        cause = f"mixes kinds of networks: a part of it {other}, another a {KINDS[min(fitting)].title}"
        raise UserError.of(path, cause)
    return wanted if wanted in fitting else next(name for name in KINDS if name in fitting)


def _kinds_telling(key: Spelled) -> list[str]:
    """The kinds that have a tensor of this name and, if several have, call their modules so."""
    kinds = [name for name, kind in KINDS.items() if key.tensor in kind.signs]
    named = [name for name in kinds if key.module.startswith(f"{KINDS[name].prefix}_")]
    return named or kinds


def _go_along(kinds: Iterable[str]) -> bool:
    return all(KINDS[kind].goes_along for kind in kinds)


def _mixture(told: dict[str, list[str]]) -> str:
    examples = {KINDS[kinds[0]].title: key for key, kinds in reversed(told.items())}
    return " and ".join(f"{title} ({key})" for title, key in sorted(examples.items()))


def _what(names: set[str], table: Mapping[str, str] | None = None) -> str:
    """What a file with these names is instead of a network; "" when nobody knows."""
    fitting = (
        what for sign, what in (table or _OTHERS).items() if any(re.search(sign, name) for name in names)
    )
    return next(fitting, "")


def _advice(kinds: Iterable[str]) -> str:
    """What to do with a file of another kind than the one asked for."""
    return " or ".join(
        f"for a {KINDS[name].title} give --network_module {KINDS[name].module}" for name in sorted(kinds)
    )
