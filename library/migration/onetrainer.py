"""OneTrainer's JSON -> Found. Only keys that differ from its defaults need be in the file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from library.migration.commands import refused_family
from library.migration.found import Found, Settings, Table
from library.problems import UserError
from library.text_files import read_text

_MODELS = re.compile(r"STABLE_DIFFUSION_(15|20|20_BASE|21|21_BASE|XL_10_BASE)(_INPAINTING)?")
_SCHEDULES = {
    "CONSTANT": "constant_with_warmup",
    "LINEAR": "linear",
    "COSINE": "cosine",
    "COSINE_WITH_RESTARTS": "cosine_with_restarts",
    "COSINE_WITH_HARD_RESTARTS": "cosine_with_restarts",
}
_OPTIMIZERS = {
    "ADAMW": "AdamW",
    "ADAMW_8BIT": "AdamW8bit",
    "PRODIGY": "Prodigy",
    "ADAFACTOR": "Adafactor",
    "LION": "Lion",
    "LION_8BIT": "Lion8bit",
    "SGD": "SGDNesterov",
    "DADAPT_ADAM": "DAdaptAdam",
    "DADAPT_LION": "DAdaptLion",
    "SCHEDULE_FREE_ADAMW": "AdamWScheduleFree",
}
_PRECISIONS = {"FLOAT_16": "fp16", "BFLOAT_16": "bf16", "FLOAT_32": "no"}
_LONGEST = 4_000_000  # bytes of a file that another names


def is_onetrainer(document: Mapping[str, Any]) -> bool:
    """Whether a JSON document is such a file."""
    return bool({"training_method", "base_model_name", "concept_file_name", "concepts"} & document.keys())


def read_onetrainer(document: Mapping[str, Any], folder: Path) -> Found:
    """folder: where files are looked for that it names. Raises UserError for what Atelier does not train."""
    run = Settings(dict(document))
    found = Found("OneTrainer")
    _choose(found, run)
    _model(found, run)
    _rates(found, run)
    _training(found, run)
    _loss(found, run)
    _saving(found, run)
    _concepts(found, run, folder)
    _samples(found, run, folder)
    run.ignore(
        "__version",
        "workspace_dir",
        "cache_dir",
        "tensorboard",
        "secrets",
        "debug_dir",
        "debug_mode",
        "train_device",
        "temp_device",
    )
    run.ignore(
        "only_cache",
        "clear_cache_before_training",
        "dataloader_threads",
        "samples",
        "concepts",
        "tensorboard_port",
        "include_train_config",
    )
    found.missing += [f"{key} has no twin, and is left out" for key in run.unread()]
    return found


def _choose(found: Found, run: Settings) -> None:
    model, method = (
        run.text("model_type") or "STABLE_DIFFUSION_15",
        run.text("training_method") or "FINE_TUNE",
    )
    match = _MODELS.fullmatch(model)
    if match is None:
        raise refused_family(f"model_type {model}")
    if match[2]:
        found.missing.append(f"model_type {model}: training for inpainting is not available")
    sdxl = match[1].startswith("XL")
    if method == "LORA":
        found.trainer = "sdxl_train_network.py" if sdxl else "train_network.py"
    elif method == "FINE_TUNE":
        found.trainer = "sdxl_train.py" if sdxl else "fine_tune.py"
    else:
        raise UserError.of(
            f"training_method {method}", "is not available yet", "see docs/options.md for what is"
        )
    if match[1] in ("20", "21"):
        found.options["v_parameterization"] = True
    if match[1].startswith("2"):
        found.options["v2"] = True


def _model(found: Found, run: Settings) -> None:
    options = found.options
    options["pretrained_model_name_or_path"] = run.text("base_model_name")
    target = PurePosixPath(
        run.text("output_model_destination").replace("\\", "/") or "models/model.safetensors"
    )
    options["output_dir"], options["output_name"] = str(target.parent), target.stem
    options["save_precision"] = {"FLOAT_16": "fp16", "BFLOAT_16": "bf16", "FLOAT_32": "float"}.get(
        run.text("output_dtype")
    )
    run.ignore("output_model_format")
    if vae := run.table("vae").text("model_name"):
        options["vae"] = vae
    if found.trainer.endswith("network.py"):
        options["network_module"] = "networks.lora"
        if (kind := run.text("peft_type") or "LORA") != "LORA":
            options["network_module"] = "lycoris.kohya"
            options["network_args"] = [f"algo={kind.lower().replace('oft_2', 'diag-oft')}"]
        options["network_dim"], options["network_alpha"] = (
            run.number("lora_rank", 16),
            run.number("lora_alpha", 1),
        )
        if run.is_on("lora_decompose"):
            found.missing.append("lora_decompose: DoRA is not available yet")
        options["network_weights"] = run.text("lora_model_name")


def _rates(found: Found, run: Settings) -> None:
    options = found.options
    rate = run.number("learning_rate", 3e-6)
    options["learning_rate"] = rate
    unet = run.table("unet")
    encoders = [run.table(name) for name in ("text_encoder", "text_encoder_2")][
        : 2 if "sdxl" in found.trainer else 1
    ]
    for part in (unet, *encoders):
        part.ignore(
            "weight_dtype",
            "model_name",
            "include",
            "train_embedding",
            "attention_mask",
            "guidance_scale",
            "dropout_probability",
        )
        if part.number("stop_training_after") and part.text("stop_training_after_unit") not in ("", "NEVER"):
            found.missing.append(f"{part.name}stop_training_after: networks and encoders train to the end")
    trained = [part.is_on("train", True) for part in encoders]
    rates = [
        part.number("learning_rate", rate) if on else 0 for part, on in zip(encoders, trained, strict=True)
    ]
    unet_rate = unet.number("learning_rate", rate) if unet.is_on("train", True) else 0
    if found.trainer.endswith("network.py"):
        options["network_train_unet_only"] = not any(trained)
        options["unet_lr"] = unet_rate if unet_rate != rate else None
        options["text_encoder_lr"] = [rates[0]] if any(trained) and rates[0] != rate else None
        if len(set(rates)) > 1:
            found.missing.append(f"text_encoder_2.learning_rate: both encoders get {rates[0]}")
    else:
        options["learning_rate"], options["train_text_encoder"] = unet_rate, any(trained)
        names = (
            ("learning_rate_te1", "learning_rate_te2") if "sdxl" in found.trainer else ("learning_rate_te",)
        )
        options |= dict(zip(names, rates, strict=True)) if any(trained) else {}


def _training(found: Found, run: Settings) -> None:
    options = found.options
    options["max_train_epochs"] = run.number("epochs", 100)
    options["train_batch_size"] = run.number("batch_size", 1)
    accumulation = run.number("gradient_accumulation_steps", 1)
    options["gradient_accumulation_steps"] = accumulation
    schedule = run.text("learning_rate_scheduler") or "CONSTANT"
    options["lr_scheduler"] = _SCHEDULES.get(schedule, "constant_with_warmup")
    if schedule not in _SCHEDULES:
        found.missing.append(f"learning_rate_scheduler {schedule}: constant_with_warmup is written instead")
    warmup = run.number("learning_rate_warmup_steps", 200)
    options["lr_warmup_steps"] = warmup if warmup < 1 else max(1, round(warmup / max(accumulation, 1)))
    if warmup == 0 and schedule == "CONSTANT":
        options["lr_scheduler"], options["lr_warmup_steps"] = "constant", 0
    cycles = run.number("learning_rate_cycles", 1)
    options["lr_scheduler_num_cycles"] = max(1, round(cycles)) if "RESTARTS" in schedule else 1
    _optimizer(found, run.table("optimizer"))
    precision = _PRECISIONS.get(run.text("train_dtype") or "FLOAT_16", "no")
    options["mixed_precision"] = precision
    weights = run.table("unet").text("weight_dtype") or run.text("weight_dtype")
    if precision == "bf16" and weights == "BFLOAT_16" and not found.trainer.endswith("network.py"):
        options["full_bf16"] = True
    options["gradient_checkpointing"] = run.text("gradient_checkpointing") not in ("OFF", "")
    if skip := run.number("text_encoder_layer_skip"):
        options["clip_skip"] = int(skip) + (2 if "sdxl" in found.trainer else 1)
    options["max_grad_norm"] = run.number("clip_grad_norm", 1)
    options["use_ema"], decay = run.text("ema") not in ("", "OFF"), run.number("ema_decay", 0.999)
    if options["use_ema"] and not found.trainer.endswith("network.py"):
        options["ema_decay"] = decay
    options["seed"] = run.take("seed", 42)
    options["cache_latents"] = options["cache_latents_to_disk"] = run.is_on("latent_caching", True)
    run.ignore(
        "attention_mechanism",
        "learning_rate_scaler",
        "ema_update_step_interval",
        "custom_learning_rate_scheduler",
    )


def _optimizer(found: Found, optimizer: Settings) -> None:
    kind = optimizer.text("optimizer") or "ADAMW"
    if kind not in _OPTIMIZERS:
        found.missing.append(f"optimizer {kind}: AdamW is written instead")
    found.options["optimizer_type"] = _OPTIMIZERS.get(kind, "AdamW")
    arguments = []
    first, second = optimizer.take("beta1"), optimizer.take("beta2")
    if first is not None and second is not None and kind != "ADAFACTOR":
        arguments.append(f"betas={first},{second}")
    for key in (
        "eps",
        "weight_decay",
        "d_coef",
        "decouple",
        "safeguard_warmup",
        "use_bias_correction",
        "relative_step",
        "scale_parameter",
        "warmup_init",
    ):
        if (value := optimizer.take(key)) is not None and not (kind == "ADAFACTOR" and key == "eps"):
            arguments.append(f"{key}={value}")
    found.options["optimizer_args"] = arguments if kind in _OPTIMIZERS else []
    optimizer.ignore(*optimizer.values)  # the others are defaults of other optimizers


def _loss(found: Found, run: Settings) -> None:
    options = found.options
    weighting, strength = run.text("loss_weight_fn"), run.number("loss_weight_strength", 5)
    if weighting == "MIN_SNR_GAMMA":
        options["min_snr_gamma"] = strength
    elif weighting == "DEBIASED_ESTIMATION":
        options["debiased_estimation_loss"] = True
    elif weighting not in ("", "CONSTANT"):
        found.missing.append(f"loss_weight_fn {weighting} is not available yet")
    options["noise_offset"] = run.number("offset_noise_weight") or None
    options["ip_noise_gamma"] = run.number("perturbation_noise_weight") or None
    low, high = run.number("min_noising_strength"), run.number("max_noising_strength", 1)
    options["min_timestep"] = round(low * 1000) or None
    options["max_timestep"] = round(high * 1000) if high < 1 else None
    options["zero_terminal_snr"] = run.is_on("rescale_noise_scheduler_to_zero_terminal_snr") or None
    if run.is_on("force_v_prediction"):
        options["v_parameterization"] = True
    options["masked_loss"] = run.is_on("masked_training")
    if options["masked_loss"] and run.number("unmasked_weight", 0.1):
        found.missing.append("unmasked_weight: what a mask leaves out does not count at all")
    run.ignore(
        "unmasked_probability",
        "normalize_masked_area_loss",
        "mse_strength",
        "timestep_distribution",
        "mae_strength",
    )


def _saving(found: Found, run: Settings) -> None:
    for key, option in (("save_every", "save"), ("sample_after", "sample")):
        every, unit = run.number(key), run.text(f"{key}_unit")
        names = {"EPOCH": f"{option}_every_n_epochs", "STEP": f"{option}_every_n_steps"}
        if every and unit in names:
            found.options[names[unit]] = int(every)
        elif every and unit not in ("", "NEVER", "ALWAYS"):
            found.missing.append(f"{key} in {unit.lower()}s has no twin: give steps or epochs")
    unit = run.text("backup_after_unit")
    found.options["save_state"] = bool(run.number("backup_after")) and unit not in ("", "NEVER")
    run.ignore(
        "backup_before_save",
        "rolling_backup",
        "rolling_backup_count",
        "save_skip_first",
        "sample_skip_first",
        "save_filename_prefix",
        "sample_image_format",
    )


def _concepts(found: Found, run: Settings, folder: Path) -> None:
    sizes = [_size(text) for text in re.split(r"[,;]\s*", run.text("resolution") or "512")]
    concepts = run.tables("concepts") or [
        Settings(row, f"concepts[{n}].")
        for n, row in enumerate(_named(found, run, "concept_file_name", folder))
    ]
    subsets = []
    for concept in concepts:
        if concept.is_on("enabled", True):
            subsets.append(_subset(found, concept))
        concept.ignore(*concept.values)
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
    run.ignore("concepts", "concept_file_name")


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
    source = text.text("prompt_source") or "sample"
    if source == "sample":
        subset["caption_extension"] = ".txt"
    elif source == "concept":
        found.missing.append(
            f"{concept.name}text.prompt_path: a file of prompts for all pictures has no twin"
        )
    else:
        found.missing.append(f"{concept.name}text.prompt_source filename: write .txt files")
    for key, option in (("enable_tag_shuffling", "shuffle_caption"),):
        if text.is_on(key):
            subset[option] = True
            subset["keep_tokens"] = int(text.number("keep_tags_count", 1))
    if image.is_on("enable_random_flip"):
        subset["flip_aug"] = True
    if image.is_on("enable_crop_jitter"):
        subset["random_crop"] = True
    if concept.is_on("include_subdirectories"):
        found.missing.append(f"{concept.name}include_subdirectories: give each folder a subset of its own")
    if concept.number("loss_weight", 1) != 1:
        found.missing.append(f"{concept.name}loss_weight has no twin")
    if image.is_on("enable_resolution_override"):
        found.missing.append(f"{concept.name}image.resolution_override: give it a dataset of its own")
    return subset


def _samples(found: Found, run: Settings, folder: Path) -> None:
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
    run.ignore("samples", "sample_definition_file_name")


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
