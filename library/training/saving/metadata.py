"""What the file of a network or of an embedding says about its training: the `ss_*` keys.

Keys and the forms of values are those of sd-scripts, which other programs read. All values are text: numbers
in decimal, True, False, None, and JSON where a document is meant.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.data.config.specs import base_name
from library.data.training_data import Dataset, TrainingData
from library.models import FAMILIES
from library.options.network import NetworkOptions
from library.options.objective import ObjectiveOptions
from library.options.textual_inversion import TextualInversionOptions
from library.training.batches import BatchSource
from library.training.diffusion.objective import Objective
from library.training.optimization.optimizers import describe_optimizer
from library.training.optimization.schedules import describe_schedule
from library.training.output import Moment
from library.training.run import TrainingRun
from library.training.saving.hashes import file_hashes
from library.training.saving.modelspec import describe_checkpoint

if TYPE_CHECKING:
    from library.training.tasks.control import ControlNetTask
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


def describe_network(
    run: TrainingRun,
    network: NetworkOptions,
    task: NetworkTask,
    batches: BatchSource,
    seed: int,
    moment: Moment,
    *,
    kind: str = "lora",
) -> dict[str, str]:
    """The metadata of a network file that is saved at a moment of its training, without its hashes.

    kind: the suffix of its `modelspec.architecture`.
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
    return described | describe_checkpoint(run, task, batches, moment, kind=kind)


def describe_embedding(
    run: TrainingRun,
    words: TextualInversionOptions,
    task: Task,
    batches: BatchSource,
    seed: int,
    moment: Moment,
) -> dict[str, str]:
    """The metadata of embedding files that are saved at a moment of their training."""
    facts = _about_run(run, task, seed, moment) | {
        "ss_token_string": list(words.token_string),
        "ss_init_word": list(words.init_word),
        "ss_num_vectors_per_token": words.num_vectors_per_token,
        "ss_use_object_template": words.use_object_template,
        "ss_use_style_template": words.use_style_template,
    }
    facts |= _about_model(run, task) | batches.metadata(run, moment)
    described = {key: _text(value) for key, value in facts.items()}
    return described | describe_checkpoint(run, task, batches, moment, kind="textual-inversion")


def describe_control(
    run: TrainingRun,
    new_rate: float,
    task: ControlNetTask,
    batches: BatchSource,
    seed: int,
    moment: Moment,
) -> dict[str, str]:
    """The metadata of a ControlNet's file that is saved at a moment of its training.

    new_rate: the learning rate of what the U-Net does not have.
    """
    facts = _about_run(run, task, seed, moment) | {
        "ss_control_net_lr": new_rate,
        "ss_hint_range": task.control_net.hint_range,
    }
    facts |= _about_model(run, task) | batches.metadata(run, moment)
    described = {key: _text(value) for key, value in facts.items()}
    return described | describe_checkpoint(run, task, batches, moment, kind="controlnet")


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


def _about_run(run: TrainingRun, task: Task, seed: int, moment: Moment) -> dict[str, Any]:
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
        **about_objective(run.objective, task.objective),
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


# Each is written as ss_ and the option's name, as sd-scripts does.
_NOISE_AND_LOSS = (
    "noise_offset",
    "noise_offset_random_strength",
    "adaptive_noise_scale",
    "multires_noise_iterations",
    "multires_noise_discount",
    "ip_noise_gamma",
    "ip_noise_gamma_random_strength",
    "min_snr_gamma",
    "loss_type",
    "huber_schedule",
    "huber_c",
    "huber_scale",
)


def about_objective(options: ObjectiveOptions, objective: Objective) -> dict[str, Any]:
    """The ss_ keys of noise and loss. objective: what the options came to with the model."""
    facts = {f"ss_{name}": getattr(options, name) for name in _NOISE_AND_LOSS}
    return facts | {
        "ss_zero_terminal_snr": objective.ends_in_noise,
        "ss_debiased_estimation": options.debiased_estimation_loss,
    }


def _about_network(network: NetworkOptions, task: NetworkTask) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "ss_training_comment": network.training_comment,
        "ss_network_module": network.network_module,
        "ss_network_dim": task.network.dim,
        "ss_network_alpha": task.network.alpha,
        "ss_network_dropout": network.network_dropout,
        "ss_unet_lr": network.unet_lr,
        "ss_text_encoder_lr": text_encoder_lr(network, len(task.model.text_encoders)),
        "ss_scale_weight_norms": network.scale_weight_norms,
    }
    if network.network_args:
        facts["ss_network_args"] = network.arguments | {"dropout": network.network_dropout}
    return facts


def text_encoder_lr(network: NetworkOptions, encoders: int) -> float | list[float] | None:
    """`ss_text_encoder_lr`: one rate as a number, one for each text encoder as a list."""
    rates = list(network.text_encoder_lr[:encoders])
    return rates if len(rates) > 1 else next(iter(rates), None)


def _about_model(run: TrainingRun, task: Task) -> dict[str, Any]:
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
        "ss_bucket_no_upscale": options.enable_bucket and options.bucket_no_upscale,
        "ss_min_bucket_reso": options.min_bucket_reso if options.enable_bucket else None,
        "ss_max_bucket_reso": options.max_bucket_reso if options.enable_bucket else None,
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
        "min_bucket_reso": spec.min_bucket_reso if spec.enable_bucket else None,
        "max_bucket_reso": spec.max_bucket_reso if spec.enable_bucket else None,
        "tag_frequency": dataset.tag_frequency,
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
                "image_dir": base_name(scan.subset.image_dir) if scan.subset.image_dir else None,
                "class_tokens": scan.subset.class_tokens,
                "is_reg": scan.subset.is_reg,
                "metadata_file": base_name(scan.subset.metadata_file) if scan.subset.metadata_file else None,
            }
            for scan in dataset.scans
        ],
    }


def _shared(values: Iterable[str | None]) -> str | None:
    """The value that all of them have; None if they differ."""
    found = set(values)
    return found.pop() if len(found) == 1 else None
