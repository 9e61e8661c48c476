"""Settings that have no effect because of other settings, on the command line and in dataset files."""

from __future__ import annotations

from collections.abc import Iterable

from library.data.config.specs import DEFAULTS, OPTION_NAMES, Given

# Key -> those of which one must be set for it to have an effect.
NEEDS = {
    "bucket_no_upscale": ("enable_bucket",),
    "min_bucket_reso": ("enable_bucket",),
    "max_bucket_reso": ("enable_bucket",),
    "bucket_reso_steps": ("enable_bucket",),
    "validation_seed": ("validation_split",),
    "keep_tokens": ("shuffle_caption", "caption_tag_dropout_rate", "token_warmup_step"),
    "token_warmup_min": ("token_warmup_step",),
}

# Key -> the one beside which it has no effect.
YIELDS_TO = {
    "min_bucket_reso": "bucket_no_upscale",  # buckets are made to fit, within no limits
    "max_bucket_reso": "bucket_no_upscale",
    "alpha_mask": "conditioning_data_dir",  # the conditioning image is the mask
}


def find_without_effect(subsets: Iterable[Given]) -> dict[str, str]:
    """The settings that have no effect in any subset that they apply to, by their place, and why. Defaults do
    not count, as other programs write them out.

    subsets: the settings of each, including those from wider tables and the command line.
    """
    idle: dict[tuple[str, str], tuple[str, str]] = {}
    used = set()
    for given in subsets:
        for key in NEEDS | YIELDS_TO:
            where, value = given[key]
            if value == DEFAULTS[key]:
                continue
            why = _why_idle(key, given)
            if why is None:
                used.add((key, where))
            else:
                idle.setdefault((key, where), _line(where, *why))
    return dict(found for place, found in idle.items() if place not in used)


def _why_idle(key: str, given: Given) -> tuple[str, tuple[str, ...]] | None:
    needed, winner = NEEDS.get(key, ()), YIELDS_TO.get(key)
    if needed and not any(given[other][1] for other in needed):
        return "without", needed
    return ("with", (winner,)) if winner is not None and given[winner][1] else None


def _line(where: str, how: str, keys: tuple[str, ...]) -> tuple[str, str]:
    if where.startswith("--"):
        keys = tuple(f"--{OPTION_NAMES.get(key, key)}" for key in keys)
    else:
        where += ":"
    *first, last = keys
    return where, f"{how} {' or '.join(filter(None, (', '.join(first), last)))}"
