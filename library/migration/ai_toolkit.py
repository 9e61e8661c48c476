"""ai-toolkit's YAML -> Found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from library.migration.commands import refused_family
from library.migration.found import Found, Settings, Table
from library.problems import UserError

_FAMILIES = (
    "is_flux",
    "is_v3",
    "is_auraflow",
    "is_pixart",
    "is_lumina2",
    "is_omnigen",
    "is_cosmos",
    "is_hidream",
)
_ARCHITECTURES = ("", "sd", "sd1", "sd15", "sd2", "sdxl")
_OPTIMIZERS = {
    "adamw8bit": "AdamW8bit",
    "adamw": "AdamW",
    "adafactor": "Adafactor",
    "prodigy": "Prodigy",
    "lion": "Lion",
    "lion8bit": "Lion8bit",
    "dadaptation": "DAdaptAdam",
    "dadaptadam": "DAdaptAdam",
}
_PRECISIONS = {
    "float16": "fp16",
    "fp16": "fp16",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "float32": "no",
    "fp32": "no",
}
_LOSSES = {"mse": "l2", "mae": "l1", "huber": "huber", "smooth_l1": "smooth_l1"}


def is_ai_toolkit(document: Mapping[str, Any]) -> bool:
    """Whether a YAML or JSON document is such a file."""
    config = document.get("config")
    return isinstance(config, dict) and isinstance(config.get("process"), list)


def read_ai_toolkit(document: Mapping[str, Any]) -> Found:
    """Raises UserError for another family of models, or a process that does not train."""
    config = Settings(document["config"], "config.")
    processes = config.tables("process")
    if not processes:
        raise UserError.of("config.process", "is empty", "give the file of a run")
    run = processes[0]
    if (kind := run.text("type")) not in ("sd_trainer", "ui_trainer", "diffusion_trainer"):
        raise UserError.of(
            f"type {kind}", "does not train a model on pictures", "give the file of a sd_trainer"
        )
    found = Found("ai-toolkit")
    _model(found, run.table("model"))
    found.options |= {
        "output_dir": run.text("training_folder") or "output",
        "output_name": config.text("name"),
    }
    _network(found, run.table("network"))
    _train(found, run.table("train"))
    _save(found, run.table("save"))
    trigger = run.text("trigger_word")
    _preservation(found, run.table("train"), trigger)
    _datasets(found, run, trigger)
    _sample(found, run.table("sample"), trigger, previews=not run.table("train").is_on("disable_sampling"))
    run.ignore("device", "performance_log_every", "sqlite_db_path", "logging", "log_dir")
    found.idle += run.idle()
    found.missing += [f"{key} has no twin, and is left out" for key in run.unread()]
    if len(processes) > 1:
        found.missing.append(f"{len(processes) - 1} more processes stand in it; they are left out")
    return found


def _model(found: Found, model: Settings) -> None:
    for key in _FAMILIES:
        if model.is_on(key):
            raise refused_family(f"model.{key}")
    if (arch := model.text("arch").lower()) not in _ARCHITECTURES:
        raise refused_family(f"model.arch {arch}")
    is_sdxl = model.is_on("is_xl") or arch == "sdxl"
    found.trainer = "sdxl_train" if is_sdxl else "train"
    found.options["pretrained_model_name_or_path"] = model.text("name_or_path")
    found.options["v2"] = model.is_on("is_v2") or arch == "sd2"
    found.options["v_parameterization"] = model.is_on("is_v_pred")
    found.options["vae"] = model.text("vae_path")
    model.ignore("quantize", "quantize_te", "low_vram", "qtype", "qtype_te", "layer_offloading", "dtype")


def _network(found: Found, network: Settings) -> None:
    if not network.values:
        found.trainer = "sdxl_train.py" if found.trainer.startswith("sdxl") else "fine_tune.py"
        return
    found.trainer += "_network.py"
    kind = network.text("type").lower() or "lora"
    convolution = [
        f"conv_{name}={network.number(key):g}"
        for key, name in (("conv", "dim"), ("conv_alpha", "alpha"))
        if network.number(key)
    ]
    found.options |= {
        "network_module": "networks.lora" if kind in ("lora", "locon") else "lycoris.kohya",
        "network_dim": network.number("linear", 4),
        "network_alpha": network.number("linear_alpha", network.number("linear", 4)),
        "network_args": convolution if kind in ("lora", "locon") else [f"algo={kind}", *convolution],
        "network_dropout": network.number("dropout") or None,
    }
    network.unchosen({"lokr_full_rank": True, "lokr_factor": -1})


def _train(found: Found, train: Settings) -> None:
    if train.text("noise_scheduler") == "flowmatch":
        raise refused_family("train.noise_scheduler flowmatch")
    options = found.options
    rate = train.number("lr", 1e-4)
    kind = train.text("optimizer").lower() or "adamw"
    if kind not in _OPTIMIZERS:
        found.missing.append(f"train.optimizer {kind}: AdamW is written instead")
    parameters = train.table("optimizer_params")
    options |= {
        "max_train_steps": int(train.number("steps", 1000)),
        "train_batch_size": int(train.number("batch_size", 1)),
        "gradient_accumulation_steps": int(
            train.number("gradient_accumulation_steps", train.number("gradient_accumulation", 1))
        ),
        "learning_rate": rate,
        "optimizer_type": _OPTIMIZERS.get(kind, "AdamW"),
        "optimizer_args": [f"{key}={parameters.take(key)}" for key in parameters.values],
        "gradient_checkpointing": train.is_on("gradient_checkpointing", True),
        "mixed_precision": _PRECISIONS.get(train.text("dtype"), "no"),
        "min_snr_gamma": train.number("min_snr_gamma", train.number("snr_gamma")) or None,
        "noise_offset": train.number("noise_offset") or None,
        "lr_scheduler": train.text("lr_scheduler") or "constant",
        "max_grad_norm": train.number("max_grad_norm", 1),
    }
    trains_text, trains_unet = train.is_on("train_text_encoder"), train.is_on("train_unet", True)
    if found.trainer.endswith("network.py"):
        options["network_train_unet_only"] = not trains_text
        options["network_train_text_encoder_only"] = trains_text and not trains_unet
        options["unet_lr"] = train.take("unet_lr")
        options["text_encoder_lr"] = train.take("text_encoder_lr")
    else:
        options["train_text_encoder"] = trains_text
    ema = train.table("ema_config")
    if ema.is_on("use_ema"):
        options |= {"use_ema": True, "ema_decay": ema.number("ema_decay", 0.99)}
    ema.ignore("ema_decay")
    loss = train.text("loss_type") or "mse"
    if loss in _LOSSES:
        options["loss_type"] = _LOSSES[loss]
    else:
        found.missing.append(f"train.loss_type {loss} has no twin")
    if train.is_on("cache_text_embeddings"):
        options["cache_text_encoder_outputs"] = True
    train.ignore("skip_first_sample", "force_first_sample", "unload_text_encoder", "noise_scheduler")
    train.ignore("bypass_guidance_embedding", "switch_boundary_every", "disable_sampling", "quantize")
    train.unchosen({"content_or_style": "balanced", "timestep_type": "sigmoid"})


def _preservation(found: Found, train: Settings, trigger: str) -> None:
    options = found.options
    word = train.text("diff_output_preservation_class")
    strengths = {
        "class": train.number("diff_output_preservation_multiplier", 1),
        "blank": train.number("blank_prompt_preservation_multiplier", 1),
    }
    if train.is_on("diff_output_preservation"):
        options |= {
            "preserve": "class",
            "preserve_trigger": trigger or None,
            "preserve_class": [word or "person"],
        }
        if options.pop("cache_text_encoder_outputs", None):
            found.changes.append(
                "cache_text_embeddings is left out: the texts of --preserve class are not cached"
            )
    elif train.is_on("blank_prompt_preservation"):
        options["preserve"] = "blank"
    if kind := options.get("preserve"):
        options["preserve_weight"] = strengths[kind]


def _save(found: Found, save: Settings) -> None:
    every, keep = int(save.number("save_every")), int(save.number("max_step_saves_to_keep"))
    found.options["save_every_n_steps"] = every or None
    if every and keep:
        found.options["save_last_n_steps"] = keep * every
        found.changes.append(f"max_step_saves_to_keep {keep} is save_last_n_steps {keep * every}")
    found.options["save_precision"] = {"no": "float"}.get(
        precision := _PRECISIONS.get(save.text("dtype"), ""), precision
    )
    save.ignore("push_to_hub", "hf_repo_id", "hf_private", "save_format")


def _datasets(found: Found, run: Settings, trigger: str) -> None:
    batch_size = found.options.get("train_batch_size", 1)
    for dataset in run.tables("datasets"):
        sizes = dataset.take("resolution", 512)
        extension = dataset.text("caption_ext") or "txt"
        subset: Table = {
            "image_dir": dataset.text("folder_path"),
            "num_repeats": max(1, int(dataset.number("num_repeats", 1))),
            "caption_extension": "." + extension.lstrip("."),
        }
        if rate := dataset.number("caption_dropout_rate"):
            subset["caption_dropout_rate"] = rate
        for key, option in (
            ("shuffle_tokens", "shuffle_caption"),
            ("flip_x", "flip_aug"),
            ("random_crop", "random_crop"),
        ):
            if dataset.is_on(key):
                subset[option] = True
        if tokens := int(dataset.number("keep_tokens")):
            subset["keep_tokens"] = tokens
        if trigger:
            subset["caption_prefix"] = f"{trigger}, "
        if dataset.is_on("cache_latents_to_disk"):
            found.options["cache_latents"] = found.options["cache_latents_to_disk"] = True
        elif dataset.is_on("cache_latents"):
            found.options["cache_latents"] = True
        for size in sizes if isinstance(sizes, list) else [sizes]:
            found.datasets.append(
                {"resolution": size, "batch_size": batch_size, "enable_bucket": True, "subsets": [subset]}
            )
        if mask := dataset.text("mask_path"):
            subset["conditioning_data_dir"] = mask
            found.options["masked_loss"] = True
        if dataset.is_on("is_reg"):
            subset["is_reg"] = True
        dataset.ignore("type", "shrink_video_to_frames", "num_frames", "do_i2v", "fps")
        dataset.unchosen({"network_weight": 1, "mask_min_value": 0.1 if not mask else 0})
    if trigger:
        found.changes.append(
            f"trigger_word {trigger!r} is put before every caption, also before those that have it"
        )


def _sample(found: Found, sample: Settings, trigger: str, *, previews: bool) -> None:
    every = int(sample.number("sample_every"))
    if previews and every:
        found.options["sample_every_n_steps"] = every
    settings = [
        (flag, sample.take(key))
        for key, flag in (("width", "w"), ("height", "h"), ("sample_steps", "s"), ("guidance_scale", "l"))
    ]
    seed, walks, negative = sample.number("seed", 42), sample.is_on("walk_seed"), sample.text("neg")
    prompts = sample.take("prompts") or [
        row.get("prompt", "") for row in sample.rows("samples") if isinstance(row, dict)
    ]
    for number, prompt in enumerate(prompts if isinstance(prompts, list) and previews else []):
        words = [" ".join(str(prompt).replace("[trigger]", trigger).split())]
        words += [f"--{flag} {value}" for flag, value in settings if value is not None]
        words.append(f"--d {int(seed) + number * walks}")
        found.prompts.append(" ".join(words + ([f"--n {negative}"] if negative else [])))
    sample.ignore("ext", "fps", "num_frames", "format", "samples")
    sample.unchosen({"sampler": "ddpm", "network_multiplier": 1, "adapter_conditioning_scale": 1})
