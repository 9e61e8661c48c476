"""What other programs, above all the kohya GUI, write into config files to no effect."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

from library.options.unset import is_unset
from library.problems import UserError

# Keys that sd-scripts ignores, and what is asked for by other means.
IGNORED: dict[str, str] = {
    "epoch": "max_train_epochs and max_train_steps say how long to train",
    "noise_offset_type": "noise_offset and multires_noise_iterations say which noise to use",
    "stop_text_encoder_training": "only train_db.py can stop the text encoder; text_encoder_lr = 0 leaves a "
    "network's as it is",
    "lr_restart_cycles": "the option is lr_scheduler_num_cycles",
    "lr_warmup": "the option is lr_warmup_steps",
    "batch_size": "the option is train_batch_size",
    "max_resolution": "the option is resolution",
    "sdxl": "the checkpoint and the command say it",
    "is_sdxl": "the checkpoint and the command say it",
    "model_train_type": "the command says it",
    "weight_dtype": "the options are mixed_precision and save_precision",
    "model_list": "",
    "enable_preview": "",
    "enable_base_weight": "",
    "randomly_choice_prompt": "",
    "ui_custom_params": "",
    "training_type": "the command says it",
    "num_cpu_threads_per_process": "it is for accelerate launch",
    "num_processes": "it is for accelerate launch",
    "num_machines": "it is for accelerate launch",
    "multi_gpu": "it is for accelerate launch",
    "gpu_ids": "it is for accelerate launch",
    "main_process_port": "it is for accelerate launch",
    "extra_accelerate_launch_args": "it is for accelerate launch",
    "dynamo_mode": "it is for accelerate launch",
    "dynamo_use_dynamic": "it is for accelerate launch",
    "dynamo_use_fullgraph": "it is for accelerate launch",
}

# Options of sd-scripts for other families of models (Flux, SD 3, Lumina, ...), which GUIs write for all.
_FAMILIES = """
    ae apply_lg_attn_mask apply_t5_attn_mask blocks_to_swap cfg_trunc_ratio clip_g
    clip_g_dropout_rate clip_l clip_l_dropout_rate discrete_flow_shift double_blocks_to_swap
    enable_scaled_pos_embed gemma2 gemma2_max_token_length guidance_rescale guidance_scale
    logit_mean logit_std mem_eff_save mode_scale model_prediction_type model_type
    pos_emb_random_crop_rate renorm_cfg sample_batch_size save_clip save_t5xxl sigmoid_scale
    single_blocks_to_swap split_mode split_qkv t5_dropout_rate t5xxl t5xxl_device t5xxl_dtype
    t5xxl_max_token_length timestep_sampling train_blocks train_double_block_indices
    train_single_block_indices train_t5xxl training_shift uniform_shift use_flash_attn use_sage_attn
    vae_chunk_size weighting_scheme
"""
IGNORED |= dict.fromkeys(_FAMILIES.split(), "it is for other families of models")
IGNORED |= dict.fromkeys(
    ("timestep_sampling", "weighting_scheme", "discrete_flow_shift"),
    "it is for other families of models; the options are timestep_distribution and timestep_shift",
)

# What programs write for an option that was not set, besides what `is_unset` knows.
_NOT_SET: dict[str, tuple[object, ...]] = {"dynamo_backend": ("no", "NO")}
# Texts in which blanks mean something.
_MAY_BE_BLANK = (
    *(
        "caption_separator",
        "secondary_separator",
        "keep_tokens_separator",
        "caption_prefix",
        "caption_suffix",
    ),
)
# What kohya_ss saves of each of its pages, and never gives to a command.
_PAGE_KEYS = {"max_resolution", "model_list", "pretrained_model_name_or_path"}
# The tables of a file of LoRA_Easy_Training_Scripts hold tables of these names.
_EASY_TABLES = {"args", "dataset_args"}


def is_not_set(key: str, value: object) -> bool:
    """Whether programs write this value of a key for an option that was not set."""
    is_blank = isinstance(value, str) and value != "" and not value.strip()
    if is_blank and key in _MAY_BE_BLANK:
        return False
    return is_unset(value) or value in _NOT_SET.get(key, ())


def is_easy_training(document: Mapping[str, object]) -> bool:
    """Whether a TOML document is of LoRA_Easy_Training_Scripts, whose tables do more than group options."""
    tables = [value for value in document.values() if isinstance(value, dict)]
    inner = set(itertools.chain.from_iterable(tables)) & _EASY_TABLES
    return any(isinstance(table.get(name), dict) for table in tables for name in inner)


def refuse_foreign(path: Path, document: Mapping[str, object]) -> None:
    """Raises UserError for a file that only `tools/migrate.py` can read: what it says is not in options."""
    cause = ""
    if is_easy_training(document):
        cause = "is a file of LoRA_Easy_Training_Scripts, which describes a dataset too"
    elif document.keys() >= _PAGE_KEYS:
        cause = "is what a page of kohya_ss saved, which says some things in other words"
    elif "training_method" in document and "base_model_name" in document:
        cause = "is a file of OneTrainer"
    if cause:
        raise UserError.of(path, cause, f"make files to train with: python tools/migrate.py {path}")
