"""What saved files say about themselves: `ss_*` for networks, `modelspec.*` for everything, and hashes.

Keys and value forms are those of sd-scripts, which other programs read; `modelspec.*` is ModelSpec 1.0.1.
All values are text: numbers in decimal, True, False, None, and JSON where a document is meant.
"""

from __future__ import annotations

import base64
import hashlib
import json
import mimetypes
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.data.training_data import Dataset, TrainingData
from library.models import FAMILIES
from library.options.network import NetworkOptions
from library.options.objective import ObjectiveOptions
from library.problems import UserError
from library.training.batches import BatchSource
from library.training.optimization.optimizers import describe_optimizer
from library.training.optimization.schedules import describe_schedule
from library.training.output import Moment
from library.training.run import TrainingRun

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from library.training.tasks.network import NetworkTask
    from library.training.tasks.task import Task

# Kept even with --no_metadata: what other programs need to use the file.
ESSENTIAL = (
    "ss_v2",
    "ss_base_model_version",
    "ss_network_module",
    "ss_network_dim",
    "ss_network_alpha",
    "ss_network_args",
)


CHECKPOINT_IMPLEMENTATION = "https://github.com/Stability-AI/generative-models"


def describe_network(
    run: TrainingRun,
    network: NetworkOptions,
    task: NetworkTask,
    batches: BatchSource,
    seed: int,
    moment: Moment,
    dtype: torch.dtype | None,
) -> dict[str, str]:
    """Metadata of a network file at a moment of its training. dtype: of its tensors in the file, None keeps
    it.
    """
    facts = (
        _about_run(run, task, seed, moment)
        | _about_network(network, task)
        | _about_model(run, task)
        | batches.metadata(run, moment)
    )
    if network.no_metadata:
        facts = {key: value for key, value in facts.items() if key in ESSENTIAL}
    described = {key: _text(value) for key, value in facts.items()}
    described |= describe_checkpoint(run, task, batches, moment, kind="lora")
    return described | network_hashes(task.network.tensors(dtype), described)


def describe_checkpoint(
    run: TrainingRun, task: Task, batches: BatchSource, moment: Moment, *, kind: str = ""
) -> dict[str, str]:
    """The modelspec keys of a file. kind: empty for a checkpoint, else its architecture's suffix ("lora")."""
    options, family = run.metadata, FAMILIES[task.model.family]
    low, high = run.objective.timestep_range
    has_range = run.objective.min_timestep is not None or run.objective.max_timestep is not None
    resolution = batches.resolution
    default_title = f"{'LoRA' if kind else 'Checkpoint'}@{int(moment.started_at)}"
    facts = {
        "sai_model_spec": "1.0.1",
        "architecture": family.architecture(task.objective.prediction) + (f"/{kind}" if kind else ""),
        "implementation": family.implementation if kind else CHECKPOINT_IMPLEMENTATION,
        "title": options.metadata_title or run.saving.output_name or default_title,
        "resolution": f"{resolution[0]}x{resolution[1]}",
        "date": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "prediction_type": task.objective.prediction,
        "timestep_range": f"{low},{high}" if has_range else None,
        "encoder_layer": run.model.clip_skip,
        "author": options.metadata_author,
        "description": options.metadata_description,
        "license": options.metadata_license,
        "tags": options.metadata_tags,
        "usage_hint": options.metadata_usage_hint,
        "thumbnail": thumbnail_url(options.metadata_thumbnail),
        "merged_from": options.metadata_merged_from,
        "trigger_phrase": options.metadata_trigger_phrase,
        "preprocessor": options.metadata_preprocessor,
        "is_negative_embedding": options.metadata_is_negative_embedding,
    }
    return {f"modelspec.{key}": str(value) for key, value in facts.items() if value is not None}


def network_hashes(tensors: dict[str, Tensor], metadata: dict[str, str]) -> dict[str, str]:
    """sshs_model_hash, over the tensors' bytes, and sshs_legacy_hash, as AUTOMATIC1111 computed it at first.

    Both are taken of the safetensors file with only the ss_* metadata.
    """
    from safetensors.torch import save

    data = save(tensors, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    header = 8 + int.from_bytes(data[:8], "little")
    return {
        "sshs_model_hash": hashlib.sha256(data[header:]).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8],
    }


@cache
def file_hashes(path: Path) -> tuple[str, str]:
    """(old, new) hash of a model file: 8 hex digits over 64 KiB at 1 MiB, and the sha256 of all of it."""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**22):
            whole.update(chunk)
        file.seek(0x100000)
        part = hashlib.sha256(file.read(0x10000))
    return part.hexdigest()[:8], whole.hexdigest()


def thumbnail_url(thumbnail: str | None) -> str | None:
    """A picture file as a data: URL; URLs stay. Raises UserError when there is no such file."""
    if thumbnail is None or thumbnail.startswith(("data:", "http://", "https://")):
        return thumbnail
    path = Path(thumbnail)
    if not path.is_file():
        raise UserError.of("--metadata_thumbnail", f"there is no file {thumbnail}")
    kind = mimetypes.guess_type(path.name)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


def _about_run(run: TrainingRun, task: NetworkTask, seed: int, moment: Moment) -> dict[str, Any]:
    training, optimizer, data = run.training, run.optimizer, run.data
    return {
        "ss_output_name": run.saving.output_name,
        "ss_training_started_at": moment.started_at,
        "ss_training_finished_at": time.time(),
        "ss_session_id": int(moment.started_at * 1000) % 2**32,
        "ss_sd_scripts_commit_hash": "(unknown)",
        "ss_seed": seed,
        "ss_learning_rate": optimizer.learning_rate,
        "ss_optimizer": describe_optimizer(optimizer),
        "ss_lr_scheduler": describe_schedule(run.schedule),
        "ss_lr_warmup_steps": run.schedule.lr_warmup_steps,
        "ss_max_grad_norm": training.max_grad_norm,
        "ss_mixed_precision": training.mixed_precision,
        "ss_full_fp16": training.full_fp16,
        "ss_lowram": run.model.lowram,
        "ss_fp8_base": run.model.fp8_base,
        "ss_fp8_base_unet": run.model.fp8_base_unet,
        "ss_gradient_checkpointing": training.gradient_checkpointing,
        "ss_gradient_accumulation_steps": training.gradient_accumulation_steps,
        "ss_max_train_steps": moment.last_step,
        "ss_num_epochs": moment.epochs,
        "ss_num_batches_per_epoch": moment.batches_per_epoch,
        "ss_epoch": moment.epoch,
        "ss_steps": moment.step,
        **about_objective(run.objective),
        "ss_prior_loss_weight": data.prior_loss_weight,
        "ss_clip_skip": run.model.clip_skip,
        "ss_max_token_length": run.model.max_token_length,
        "ss_cache_latents": run.caching.caches_latents,
        "ss_caption_dropout_rate": data.caption_dropout_rate,
        "ss_caption_dropout_every_n_epochs": data.caption_dropout_every_n_epochs,
        "ss_caption_tag_dropout_rate": data.caption_tag_dropout_rate,
        "ss_resize_interpolation": data.resize_interpolation,
        "ss_face_crop_aug_range": data.face_crop_aug_range,
        "ss_validation_seed": data.validation_seed,
        "ss_validation_split": data.validation_split,
        "ss_max_validation_steps": run.validation.max_validation_steps,
        "ss_validate_every_n_epochs": run.validation.validate_every_n_epochs,
        "ss_validate_every_n_steps": run.validation.validate_every_n_steps,
    }


# As sd-scripts writes them, each ss_ and the option's name.
_NOISE_AND_LOSS = (
    "noise_offset",
    "noise_offset_random_strength",
    "adaptive_noise_scale",
    "multires_noise_iterations",
    "multires_noise_discount",
    "ip_noise_gamma",
    "ip_noise_gamma_random_strength",
    "zero_terminal_snr",
    "min_snr_gamma",
    "loss_type",
    "huber_schedule",
    "huber_c",
    "huber_scale",
)


def about_objective(objective: ObjectiveOptions) -> dict[str, Any]:
    """The ss_ keys of noise and loss."""
    facts = {f"ss_{name}": getattr(objective, name) for name in _NOISE_AND_LOSS}
    return facts | {"ss_debiased_estimation": objective.debiased_estimation_loss}


def _about_network(network: NetworkOptions, task: NetworkTask) -> dict[str, Any]:
    facts = {
        "ss_training_comment": network.training_comment,
        "ss_network_module": network.network_module,
        "ss_network_dim": task.network.dim,
        "ss_network_alpha": task.network.alpha,
        "ss_network_dropout": network.network_dropout,
        "ss_unet_lr": network.unet_lr,
        "ss_text_encoder_lr": next(iter(network.text_encoder_lr), None),
        "ss_scale_weight_norms": network.scale_weight_norms,
    }
    if network.network_args:
        facts["ss_network_args"] = network.arguments | {"dropout": network.network_dropout}
    return facts


def _about_model(run: TrainingRun, task: NetworkTask) -> dict[str, Any]:
    model, family = task.model, FAMILIES[task.model.family]
    version = family.base_version(task.objective.prediction)
    facts: dict[str, Any] = {"ss_v2": family.flag == "--v2", "ss_base_model_version": version}
    for source, prefix in ((model.source, "sd_model"), (model.vae_source, "vae")):
        if source is None:
            continue
        is_file = source.path.is_file()
        facts[f"ss_{prefix}_name"] = source.path.name if Path(source.name).exists() else source.name
        if is_file:
            old, new = file_hashes(source.path)
            facts |= {f"ss_{prefix}_hash": old, f"ss_new_{prefix}_hash": new}
    return facts


def describe_data(run: TrainingRun, data: TrainingData, moment: Moment) -> dict[str, Any]:
    """The ss_ keys of datasets."""
    facts: dict[str, Any] = {
        "ss_num_train_images": data.train_count,
        "ss_num_reg_images": sum(dataset.reg_found for dataset in data.datasets),
        "ss_num_validation_images": data.validation.train_count if data.validation else 0,
        "ss_dataset_dirs": data.dirs(),
        "ss_tag_frequency": data.tag_frequency(),
    }
    if run.data.dataset_config is not None:
        return facts | {"ss_datasets": [_about_dataset(dataset) for dataset in data.datasets]}
    options = run.data
    return facts | {
        "ss_reg_dataset_dirs": data.dirs(is_reg=True),
        "ss_bucket_info": json.dumps(data.bucket_info()),
        "ss_batch_size_per_device": options.train_batch_size,
        "ss_total_batch_size": (
            options.train_batch_size * moment.processes * run.training.gradient_accumulation_steps
        ),
        "ss_resolution": str(data.datasets[0].spec.resolution),
        "ss_enable_bucket": options.enable_bucket,
        "ss_bucket_no_upscale": options.bucket_no_upscale,
        "ss_min_bucket_reso": options.min_bucket_reso,
        "ss_max_bucket_reso": options.max_bucket_reso,
        "ss_flip_aug": options.flip_aug,
        "ss_color_aug": options.color_aug,
        "ss_random_crop": options.random_crop,
        "ss_shuffle_caption": options.shuffle_caption,
        "ss_keep_tokens": options.keep_tokens,
    }


def _about_dataset(dataset: Dataset) -> dict[str, Any]:
    spec = dataset.spec
    return {
        "is_dreambooth": spec.is_dreambooth,
        "batch_size_per_device": spec.batch_size,
        "num_train_images": dataset.train_count,
        "num_reg_images": dataset.reg_found,
        "resolution": list(spec.resolution),
        "enable_bucket": spec.enable_bucket,
        "min_bucket_reso": spec.min_bucket_reso,
        "max_bucket_reso": spec.max_bucket_reso,
        "tag_frequency": dataset.tag_frequency(),
        "bucket_info": dataset.bucket_info(),
        "resize_interpolation": _shared(subset.resize_interpolation for subset in spec.subsets),
        "subsets": [
            {
                "img_count": len(scan.records),
                "num_repeats": scan.subset.num_repeats,
                "color_aug": scan.subset.color_aug,
                "flip_aug": scan.subset.flip_aug,
                "random_crop": scan.subset.random_crop,
                "shuffle_caption": scan.subset.shuffle_caption,
                "keep_tokens": scan.subset.keep_tokens,
                "keep_tokens_separator": scan.subset.keep_tokens_separator,
                "secondary_separator": scan.subset.secondary_separator,
                "enable_wildcard": scan.subset.enable_wildcard,
                "caption_prefix": scan.subset.caption_prefix,
                "caption_suffix": scan.subset.caption_suffix,
                "resize_interpolation": scan.subset.resize_interpolation,
                "image_dir": scan.subset.name if scan.subset.image_dir else None,
                "class_tokens": scan.subset.class_tokens,
                "is_reg": scan.subset.is_reg,
                "metadata_file": scan.subset.metadata_file.name if scan.subset.metadata_file else None,
            }
            for scan in dataset.scans
        ],
    }


def _shared(values: Iterable[str | None]) -> str | None:
    """The value that all have; None when they differ."""
    found = set(values)
    return found.pop() if len(found) == 1 else None
