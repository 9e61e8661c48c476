"""The pictures and prompts of OneTrainer: concepts and samples, in its JSON or in files beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from library.migration.found import Found, Settings, Table
from library.problems import UserError
from library.text_files import read_text

_PICTURES = {"enable_random_flip": "flip_aug", "enable_crop_jitter": "random_crop"}
_LONGEST = 4_000_000  # bytes of a file that another names


def read_concepts(found: Found, run: Settings, folder: Path) -> None:
    sizes = [_size(text) for text in re.split(r"[,;]\s*", run.text("resolution") or "512")]
    rows = run.rows("concepts") or _named(found, run, "concept_file_name", folder)
    concepts = [Settings(row, f"concepts[{number}].") for number, row in enumerate(rows)]
    subsets = []
    for concept in concepts:
        if concept.is_on("enabled", True):
            subsets.append(_subset(found, concept))
        else:
            concept.ignore(*concept.values)
        found.idle += concept.idle()
        found.missing += [f"{key} has no twin, and is left out" for key in concept.unread()]
    own = {
        "batch_size": int(run.number("batch_size", 1)),
        "enable_bucket": run.is_on("aspect_ratio_bucketing", True),
    }
    if subsets:
        found.datasets = [{"resolution": size, **own, "subsets": subsets} for size in sizes]
    else:
        found.missing.append("no concepts were found: add the pictures' folder as train_data_dir")
    if len(sizes) > 1:
        found.changes.append(f"{len(sizes)} resolutions are {len(sizes)} datasets of the same pictures")


def _subset(found: Found, concept: Settings) -> Table:
    text, image = concept.table("text"), concept.table("image")
    subset: Table = {"image_dir": concept.text("path")}
    repeats = concept.number("balancing", 1)
    if concept.text("balancing_strategy") == "SAMPLES":
        found.missing.append(f"{concept.name}balancing {repeats} pictures: 1 repeat is written")
        repeats = 1
    subset["num_repeats"] = max(1, round(repeats))
    if repeats != round(repeats):
        found.missing.append(
            f"{concept.name}balancing {repeats}: {subset['num_repeats']} repeats are written"
        )
    _captions(found, text, subset)
    for key, option in _PICTURES.items():
        if image.is_on(key):
            subset[option] = True
    if concept.is_on("include_subdirectories"):
        found.missing.append(f"{concept.name}include_subdirectories: give each folder a subset of its own")
    if concept.number("loss_weight", 1) != 1:
        found.missing.append(f"{concept.name}loss_weight has no twin")
    if image.is_on("enable_resolution_override"):
        found.missing.append(f"{concept.name}image.resolution_override: give it a dataset of its own")
    kind = concept.text("type") or "STANDARD"
    if kind == "PRIOR_PREDICTION" or kind == "VALIDATION" or concept.is_on("validation_concept"):
        found.missing.append(f"{concept.name}type {kind}: it would be trained on; remove its subset")
    for table in (concept, text, image):
        table.ignore("__version")
    concept.ignore("name", "seed", "concept_stats", "enabled")
    concept.unchosen({"balancing_strategy": "REPEATS", "image_variations": 1, "text_variations": 1})
    image.unchosen({"resolution_override": "512"})
    _drop_strengths(image, "random_rotate_max_angle", "_rotate")
    for name in ("brightness", "contrast", "saturation", "hue"):
        _drop_strengths(image, f"random_{name}_max_strength", f"_{name}")
    return subset


def _captions(found: Found, text: Settings, subset: Table) -> None:
    source = text.text("prompt_source") or "sample"
    if source == "sample":
        subset["caption_extension"] = ".txt"
        text.ignore("prompt_path")
    elif source == "concept":
        path = text.text("prompt_path")
        found.missing.append(f"{text.name}prompt_path {path}: one file for all pictures has no twin")
    else:
        found.missing.append(f"{text.name}prompt_source filename: write .txt files")
    if text.is_on("enable_tag_shuffling"):
        subset["shuffle_caption"] = True
        subset["keep_tokens"] = int(text.number("keep_tags_count", 1))
    if (delimiter := text.take("tag_delimiter", ",")) != ",":
        subset["caption_separator"] = str(delimiter)
    if text.is_on("tag_dropout_enable"):
        rate = text.number("tag_dropout_probability")
        if (mode := text.text("tag_dropout_mode") or "FULL") == "FULL":
            subset["caption_dropout_rate"] = rate
        elif mode == "RANDOM":
            subset["caption_tag_dropout_rate"] = rate
        else:
            found.missing.append(f"{text.name}tag_dropout_mode {mode} has no twin")
    text.ignore("keep_tags_count")
    text.unchosen(
        {
            "tag_dropout_mode": "FULL",
            "tag_dropout_special_tags_mode": "NONE",
            "caps_randomize_mode": "capslock, title, first, random",
        }
    )


def _drop_strengths(image: Settings, strength: str, ending: str) -> None:
    """How strong a change of pictures is means nothing while the change is off."""
    if not any(image.values.get(f"enable_{how}{ending}") for how in ("random", "fixed")):
        image.ignore(strength)


def read_samples(found: Found, run: Settings, folder: Path) -> None:
    rows = run.take("samples") or _named(found, run, "sample_definition_file_name", folder)
    for row in rows if isinstance(rows, list) else []:
        sample = Settings(row, "samples.")
        words = [" ".join(sample.text("prompt").split())]
        for key, flag in (
            ("width", "w"),
            ("height", "h"),
            ("seed", "d"),
            ("diffusion_steps", "s"),
            ("cfg_scale", "l"),
        ):
            if (value := sample.take(key)) is not None and not (
                key == "seed" and sample.is_on("random_seed")
            ):
                words.append(f"--{flag} {value}")
        if negative := " ".join(sample.text("negative_prompt").split()):
            words.append(f"--n {negative}")
        if sample.is_on("enabled", True) and words[0]:
            found.prompts.append(" ".join(words))


def _named(found: Found, run: Settings, key: str, folder: Path) -> list[Any]:
    """The list in a file that the settings name, where it can be read."""
    if not (name := run.text(key)):
        return []
    path = next((place for place in (folder / name, folder / Path(name).name) if place.is_file()), None)
    if path is None:
        found.missing.append(f"{key}: {name} was not found beside the file")
        return []
    try:
        rows = json.loads(read_text(path, longest=_LONGEST))
    except (ValueError, RecursionError):
        raise UserError.of(path, "is not JSON", "save it anew in OneTrainer") from None
    return rows if isinstance(rows, list) else []


def _size(text: str) -> int | list[int]:
    numbers = [int(number) for number in re.findall(r"\d{1,5}", text)]
    if len(numbers) not in (1, 2):
        raise UserError.of(f"resolution {text[:40]!r}", "is no size", "write 512 or 768x1024")
    return numbers[0] if len(numbers) == 1 else numbers
