"""The settings that decide what a run computes. A state holds them, so that resuming with others is never
silent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library import queued
from library.data.config.specs import DATASET_KEYS, OPTION_NAMES, SUBSET_KEYS
from library.data.training_data import TrainingData
from library.models import check_vae
from library.models.detection import is_inpainting
from library.models.sources import Source, find_source
from library.models.weights import tensor_places
from library.network.loading import DEFAULT
from library.options.caching import CachingOptions
from library.options.console import ConsoleOptions
from library.options.data import DataOptions
from library.options.fields import sections_in, values_of
from library.options.generation import PreviewOptions
from library.options.hub import HubOptions
from library.options.logging import LoggingOptions
from library.options.model import ModelOptions
from library.options.processes import ProcessOptions
from library.options.saving import CheckpointOptions, MetadataOptions, SavingOptions
from library.options.validation import ValidationOptions
from library.problems import Problems, UserError, warn
from library.training.batches import BatchSource
from library.training.position import PICTURES, read_json, read_state_info
from library.training.run import TrainingRun
from library.training.saving.manifest import is_as_saved

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = dict[str, Any]  # option name -> its value, as JSON has it

# Sections and options that do not change what is computed.
_FREE_SECTIONS = (
    SavingOptions,
    CheckpointOptions,
    MetadataOptions,
    LoggingOptions,
    HubOptions,
    ConsoleOptions,
    PreviewOptions,
    ValidationOptions,
    ProcessOptions,
)
_FREE = {
    *("v2", "lowram", "disable_mmap_load_safetensors", "highvram", "sdpa", "no_half_vae"),
    *("train_data_dir", "reg_data_dir", "in_json", "dataset_config", "conditioning_data_dir", "ucg"),
    *("min_image_side", "on_bad_image", "debug_dataset", "cache_info", "validation_split", "validation_seed"),
    *("max_data_loader_n_workers", "persistent_data_loader_workers", "cache_in_memory_limit"),
    *("gradient_checkpointing", "cpu_offload_checkpointing", "blocks_to_swap", "ema_device"),
    *("network_weights", "prompts_file", "training_comment", "no_metadata", "save_model_as"),
    "save_embeddings",
    *("image_dir", "metadata_file", "caption_extension", "custom_attributes"),
    *("initial_epoch", "initial_step", "skip_until_initial_step", "dim_from_weights"),
    # The state itself holds the seed, the optimizer's class and the moving average.
    *("seed", "use_ema", "optimizer_type", "use_8bit_adam", "use_lion_optimizer"),
    *("fused_backward_pass", "fused_optimizer_groups"),  # the same steps, at another moment
}
# What the trained weights and the optimizer's state depend on: with another value they mean something else.
_LEARNED_WITH = {
    "pretrained_model_name_or_path": "the model",
    "base_weights": "the model",
    "base_weights_multiplier": "the model",
    "train_inpainting": "the model",
    "vae": "the VAE",
    "v_parameterization": "what is predicted",
    "objective": "what is predicted",
    "clip_skip": "the text encoder's layer",
    "network_module": "the network",
    "network_dim": "the network",
    "cond_emb_dim": "the network",
    "network_alpha": "the network",
    "network_train_unet_only": "what is trained",
    "network_train_text_encoder_only": "what is trained",
    "train_text_encoder": "what is trained",
    "unetonly": "what is trained",
    "encoderonly": "what is trained",
    "full_bf16": "the precision of what is trained",
    "full_fp16": "the precision of what is trained",
}
_WINDOW = 1024  # bytes of a tensor that are looked at, three times
# The ends of such names in --network_args.
_LEARNED_ARGUMENTS = ("dim", "alpha", "dims", "alphas", "constraint", "coft", "coft_eps")


@dataclass(frozen=True)
class Change:
    """A setting that has changed.

    name: of the option, or `option.argument`.
    old, new: both values, in words.
    """

    name: str
    old: str
    new: str

    @property
    def breaks(self) -> bool:
        """Whether the trained weights would mean something else."""
        section, _, argument = self.name.partition(".")
        return section in _LEARNED_WITH or (
            section == "network_args" and argument.endswith(_LEARNED_ARGUMENTS)
        )


def settings_of(run: TrainingRun, batches: BatchSource) -> Settings:
    """Everything that decides what a run computes. It has no absolute path and nothing that changes from one
    start to the next. Settings of pictures and captions are those of the datasets, wherever they were given.
    """
    settings: Settings = {}
    for section in sections_in(run).values():
        if not isinstance(section, (*_FREE_SECTIONS, DataOptions, CachingOptions)):
            settings |= _options(section, ())
    settings |= _options(run.data, (*DATASET_KEYS, *SUBSET_KEYS, *OPTION_NAMES.values()))
    settings |= batches.settings()
    settings["cache_latents"] = run.caching.caches_latents  # then each picture has one latent
    if settings.get("network_module") == DEFAULT and settings["network_alpha"] is None:
        settings["network_alpha"] = 1.0  # LoRA's own; states of before other kinds were there have it
    for name in ("optimizer_args", "network_args", "lr_scheduler_args"):
        settings |= _arguments(name, settings.pop(name, ()))
    settings["train_inpainting"] = run.model.train_inpainting or _is_inpainting(run.model)
    settings["pretrained_model_name_or_path"] = _model(find_source, run.model.pretrained_model_name_or_path)
    settings["vae"] = _model(check_vae, run.model.vae)
    return settings


def changes(old: Settings, new: Settings) -> list[Change]:
    """The settings that both have and that differ, and the arguments that only one has."""
    names = [name for name in dict.fromkeys([*old, *new]) if "." in name or (name in old and name in new)]
    found = [(name, old.get(name), new.get(name)) for name in names]
    return [Change(name, *_words(was, now)) for name, was, now in found if not _is_same(was, now)]


def check_resumed(run: TrainingRun, batches: BatchSource) -> None:
    """Warns of every setting that has changed since the state to resume from was saved, and of pictures and
    captions that were edited.

    Raises UserError for changes with which the trained weights would mean something else.
    """
    if run.saving.resume is None:
        return
    info = read_state_info(run.saving.resume)
    problems = Problems()
    for change in changes(info.settings, settings_of(run, batches)) if info.settings else ():
        flag = f"--{OPTION_NAMES.get(change.name, change.name).replace('.', ' ')}"
        if change.breaks:
            cause = f"is {change.new}, but was {change.old} when the state was saved"
            problems.add(flag, cause, "give that again, or start a new run from the saved weights")
        else:
            warn(f"{flag} was {change.old} until step {info.current_step}; from there on it is {change.new}")
    problems.raise_if_any()
    edits = batches.edits(_stamps(run.saving.resume / PICTURES))
    if edits and queued.is_own_state(info.run):  # nobody is there to read a warning
        cause = f"since step {info.current_step}, where this run goes on, {'; '.join(edits)}"
        raise UserError.of("training data", cause, "restore it, or add the run to its queue anew")
    for line in edits:
        warn(f"since step {info.current_step}, {line}; from there on they are trained as they are now")


def _stamps(path: Path) -> dict[str, Any]:
    """What the pictures of a state were; nothing in one of an older version, or if it is damaged."""
    try:
        found = read_json(path) if is_as_saved(path) else {}
    except UserError:
        return {}
    return found if isinstance(found, dict) else {}


def _options(section: DataclassInstance, without: Iterable[str]) -> Settings:
    values = values_of(section)
    return {name: _as_json(values[name]) for name in sorted(values.keys() - _FREE - set(without))}


def settings_of_datasets(data: TrainingData) -> Settings:
    """Each key's value, or a list of values where datasets or subsets differ."""
    datasets = [dataset.spec for dataset in data.datasets]
    subsets = [subset for dataset in datasets for subset in dataset.subsets]
    settings = {key: _shared([getattr(spec, key) for spec in datasets]) for key in DATASET_KEYS}
    settings |= {key: _shared([getattr(spec, key) for spec in subsets]) for key in SUBSET_KEYS}
    return {key: value for key, value in settings.items() if key not in _FREE}


def _shared(values: list[Any]) -> Any:
    values = [_as_json(value) for value in values]
    return values[0] if all(value == values[0] for value in values) else values


def _arguments(option: str, words: Iterable[str]) -> Settings:
    return {f"{option}.{name}": value for name, _, value in (word.partition("=") for word in words)}


def _model(find: Callable[[str], Source], name: str | None) -> dict[str, str] | None:
    """A model's base name, and a hash that tells it from others of that name."""
    if name is None:
        return None
    try:
        source = find(name)
    except UserError:  # reported by the checks before the start
        return {"name": Path(name).name, "content": ""}
    inner = (path for path in source.path.rglob("*") if path.suffix.lower() in (".safetensors", ".bin"))
    files = [source.path] if source.path.is_file() else sorted(inner)
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        digest.update(_ends(file))
    shown = Path(name).name if Path(name).exists() else name
    return {"name": shown, "content": digest.hexdigest(), "sample": _sample(files)}


def _is_inpainting(options: ModelOptions) -> bool:
    try:
        return is_inpainting(find_source(options.pretrained_model_name_or_path))
    except UserError:  # reported by the checks before the start
        return False


def _sample(files: Iterable[Path]) -> str:
    """A hash over the beginning, middle and end of every tensor: what merging a network changes, even in one
    layer, lies in these. "" if a file cannot be read, which the checks before the start report.
    """
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        try:
            places = tensor_places(file)
        except UserError:
            return ""
        with file.open("rb") as opened:
            for name, (position, size) in sorted(places.items(), key=lambda item: item[1]):
                digest.update(f"{name} {size}".encode())
                for start in sorted({0, max(0, size // 2 - _WINDOW // 2), max(0, size - _WINDOW)}):
                    opened.seek(position + start)
                    digest.update(opened.read(min(_WINDOW, size - start)))
    return digest.hexdigest()


def _ends(file: Path) -> bytes:
    """A file's size, and 64 KiB from its beginning, from 1 MiB on and from its end. States of before samples
    of every tensor were kept have a hash of these only.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        pieces = [str(size).encode()]
        for start in (0, 2**20, max(0, size - 2**16)):
            opened.seek(start)
            pieces.append(opened.read(2**16))
    return b"".join(pieces)


def _as_json(value: Any) -> Any:
    if isinstance(value, Path):
        return value.name
    return [_as_json(item) for item in value] if isinstance(value, (tuple, list)) else value


def _is_same(was: Any, now: Any) -> bool:
    """Whether two values mean the same; of models the samples of their tensors are compared where both have
    them, else what older states have.
    """
    if not (isinstance(was, dict) and isinstance(now, dict)):
        return was == now
    key = "sample" if was.get("sample") and now.get("sample") else "content"
    return was[key] == now[key]


def _words(was: Any, now: Any) -> tuple[str, str]:
    """Both values in words that differ."""
    old, new = _word(was), _word(now)
    return (f"another {old}", f"this {new}, with other weights") if old == new else (old, new)


def _word(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        return value["name"]
    return ",".join(map(_word, value)) if isinstance(value, list) else str(value)
