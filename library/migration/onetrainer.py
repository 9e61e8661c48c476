"""OneTrainer's JSON -> Found. Only keys that differ from its defaults need be in the file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from library.migration.commands import refused_family
from library.migration.found import Found, Settings
from library.migration.onetrainer_data import read_concepts, read_samples
from library.problems import UserError

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
_ARGUMENTS = """
    eps weight_decay d0 d_coef decouple safeguard_warmup use_bias_correction relative_step scale_parameter
    warmup_init amsgrad momentum nesterov clip_threshold decay_rate
"""
_UNCHOSEN_OF_OPTIMIZERS: dict[str, object] = {
    "min_8bit_size": 4096,
    "percentile_clipping": 100,
    "block_wise": True,
    "optim_bits": 32,
    "growth_rate": math.inf,
    "weight_lr_power": 2,
    "eps2": 1e-3,
}
# What is for the program's own pages and machine, or for other families of models.
_ELSEWHERE = """
    __version text_encoder_2 text_encoder_2_layer_skip workspace_dir cache_dir
    tensorboard tensorboard_expose tensorboard_always_on tensorboard_port
    secrets debug_dir debug_mode train_device temp_device only_cache clear_cache_before_training
    dataloader_threads include_train_config samples_to_tensorboard non_ema_sampling
    enable_async_offloading enable_activation_offloading layer_offload_fraction async_gradient_reduce
    async_gradient_reduce_buffer gradient_reduce_precision fused_gradient_reduce multi_gpu device_indexes
    force_circular_padding dynamic_timestep_shifting
    transformer prior decoder decoder_text_encoder decoder_vqgan effnet_encoder quantization
    text_encoder_3 text_encoder_4 text_encoder_3_layer_skip text_encoder_4_layer_skip
    text_encoder_3_sequence_length text_encoder_4_sequence_length text_encoder_sequence_length
    train_any_output_embedding embedding_learning_rate preserve_embedding_norm embedding
    embedding_weight_dtype lora_weight_dtype output_model_format output_model_destination
    attention_mechanism compile learning_rate_scaler ema_update_step_interval optimizer_defaults
    custom_learning_rate_scheduler scheduler_params validation_concept_file_name sample_image_format
    sample_video_format sample_audio_format backup_before_save rolling_backup rolling_backup_count
    save_skip_first sample_skip_first save_filename_prefix frames concepts samples
    dataloader_threads_per_device bundle_additional_embeddings lora_layer_preset layer_filter_preset
    huggingface_token cloud
"""
# What it writes where nothing was chosen.
_UNCHOSEN: dict[str, object] = {
    "validate_after": 1,
    "validate_after_unit": "EPOCH",
    "mse_strength": 1,
    "unmasked_probability": 0.1,
    "dropout_probability": 0,
    "continue_last_backup": False,
    "normalize_masked_area_loss": False,
    "unmasked_weight": 0.1,
    "embedding_weight_dtype": "FLOAT_32",
    "lora_decompose_norm_epsilon": True,
    "lora_decompose_output_axis": False,
    "lokr_decompose_both": False,
    "oft_block_size": 32,
    "oft_coft": False,
    "coft_eps": 1e-4,
    "oft_block_share": False,
    "oft_scaled": False,
    "lokr_factor": -1,
    "loss_scaler": "NONE",
    "fallback_train_dtype": "BFLOAT_16",
    "enable_autocast_cache": True,
    "learning_rate_min_factor": 0,
    "layer_filter": "",
    "vae_weight_dtype": "FLOAT_32",
    "weight_dtype": "FLOAT_32",
    "prior_preservation": False,
    "huber_strength": 0,
    "huber_delta": 1,
    "loss_weight_strength": 5,
    "masked_prior_preservation_weight": 0,
    "custom_conditioning_image": False,
    "latent_caching": True,
    "gradient_checkpointing": "ON",
}


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
    read_concepts(found, run, folder)
    read_samples(found, run, folder)
    run.ignore(*_ELSEWHERE.split())
    run.unchosen(_UNCHOSEN)
    found.idle += run.idle()
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
        found.options["train_inpainting"] = True
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
    vae = run.table("vae")
    vae.ignore(*(key for key in vae.values if key != "model_name"))  # only FINE_TUNE_VAE trains it
    options["vae"] = vae.text("model_name") or None
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
            of_outputs = run.is_on("lora_decompose_output_axis")
            options["network_args"] = [
                *options.get("network_args", ()),
                *("dora_wd=True", f"wd_on_output={of_outputs}"),
            ]
        options["network_weights"] = run.text("lora_model_name")
    run.ignore("peft_type", "lora_rank", "lora_alpha", "lora_decompose", "lora_model_name")
    run.ignore("lora_decompose_output_axis")


def _rates(found: Found, run: Settings) -> None:
    options = found.options
    rate = run.number("learning_rate", 3e-6)
    options["learning_rate"] = rate
    unet = run.table("unet")
    names = ("text_encoder", "text_encoder_2") if "sdxl" in found.trainer else ("text_encoder",)
    encoders = [run.table(name) for name in names]
    for part in (unet, *encoders):
        part.ignore(
            "__version", "weight_dtype", "include", "train_embedding", "attention_mask", "guidance_scale"
        )
        part.unchosen({"stop_training_after_unit": "NEVER"})
        if part.number("stop_training_after") and part.text("stop_training_after_unit") not in ("", "NEVER"):
            found.missing.append(f"{part.name}stop_training_after: networks and encoders train to the end")
        if part.text("model_name"):
            found.missing.append(f"{part.name}model_name: parts come from the checkpoint")
        if part.number("dropout_probability"):
            found.missing.append(f"{part.name}dropout_probability: set caption_dropout_rate of the pictures")
    trained = [part.is_on("train", True) for part in encoders]
    rates = [
        part.number("learning_rate", rate) if on else 0 for part, on in zip(encoders, trained, strict=True)
    ]
    unet_rate = unet.number("learning_rate", rate) if unet.is_on("train", True) else 0
    if found.trainer.endswith("network.py"):
        options["network_train_unet_only"] = not any(trained)
        options["unet_lr"] = unet_rate if unet_rate != rate else None
        if any(trained) and set(rates) != {rate}:
            options["text_encoder_lr"] = rates if len(set(rates)) > 1 else rates[:1]
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
    precision = _PRECISIONS.get(run.text("train_dtype") or "FLOAT_16", "no")
    options["mixed_precision"] = precision
    _optimizer(found, run.table("optimizer"))
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


def _optimizer(found: Found, optimizer: Settings) -> None:
    kind = optimizer.text("optimizer") or "ADAMW"
    if kind not in _OPTIMIZERS:
        found.missing.append(f"optimizer {kind}: AdamW is written instead")
    found.options["optimizer_type"] = _OPTIMIZERS.get(kind, "AdamW")
    arguments = []
    first, second = optimizer.take("beta1"), optimizer.take("beta2")
    if first is not None and second is not None and kind != "ADAFACTOR":
        arguments.append(f"betas={first},{second}")
    for key in _ARGUMENTS.split():
        if (value := optimizer.take(key)) is not None and not (kind == "ADAFACTOR" and key == "eps"):
            arguments.append(f"{key}={value}")
    found.options["optimizer_args"] = arguments if kind in _OPTIMIZERS else []
    accumulates = found.options["gradient_accumulation_steps"] != 1
    if not accumulates and found.options["mixed_precision"] != "fp16" and optimizer.is_on("fused_back_pass"):
        found.options["fused_backward_pass"] = True
    optimizer.ignore("fused_back_pass")
    # Weights of 16 bits are always rounded by chance.
    optimizer.ignore(
        "__version",
        "stochastic_rounding",
        "fused",
        "foreach",
        "capturable",
        "use_triton",
        "cans",
        "fsdp_in_use",
        "slice_p",
    )
    optimizer.unchosen(_UNCHOSEN_OF_OPTIMIZERS)


def _loss(found: Found, run: Settings) -> None:
    options = found.options
    weighting, strength = run.text("loss_weight_fn"), run.number("loss_weight_strength", 5)
    if weighting == "MIN_SNR_GAMMA":
        options["min_snr_gamma"] = strength
    elif weighting == "DEBIASED_ESTIMATION":
        options["debiased_estimation_loss"] = True
    elif weighting == "P2":
        options["p2_gamma"] = strength
    elif weighting == "SIGMA":
        found.missing.append("loss_weight_fn SIGMA (times the flow's time) has no twin")
    elif weighting not in ("", "CONSTANT"):
        found.missing.append(f"loss_weight_fn {weighting} is not available yet")
    options["noise_offset"] = run.number("offset_noise_weight") or None
    options["ip_noise_gamma"] = run.number("perturbation_noise_weight") or None
    _timesteps(found, run)
    low, high = run.number("min_noising_strength"), run.number("max_noising_strength", 1)
    options["min_timestep"] = round(low * 1000) or None
    options["max_timestep"] = round(high * 1000) if high < 1 else None
    options["zero_terminal_snr"] = run.is_on("rescale_noise_scheduler_to_zero_terminal_snr") or None
    if run.is_on("force_v_prediction"):
        options["v_parameterization"] = True
    options["masked_loss"] = run.is_on("masked_training")
    if options["masked_loss"] and run.number("unmasked_weight", 0.1):
        found.missing.append("unmasked_weight: what a mask leaves out does not count at all")
    if options["masked_loss"] and run.is_on("normalize_masked_area_loss"):
        found.missing.append("normalize_masked_area_loss: a loss is a mean over all of the picture")


def _timesteps(found: Found, run: Settings) -> None:
    kind, weight, bias = (
        run.text("timestep_distribution"),
        run.number("noising_weight"),
        run.number("noising_bias"),
    )
    curve = {"weight": weight, "centre": bias + 0.5}
    known: dict[str, tuple[str, dict[str, float]]] = {
        "LOGIT_NORMAL": ("logit_normal", {"mean": bias, "std": weight + 1}),
        "HEAVY_TAIL": ("mode", {"scale": weight}),
        "BETA": ("beta", {"alpha": weight, "beta": bias}),
        "COS_MAP": ("cosine", {}),
        "SIGMOID": ("sigmoid_curve", curve),
        "INVERTED_PARABOLA": ("parabola", curve),
    }
    if kind in known:
        name, numbers = known[kind]
        found.options["timestep_distribution"] = name
        found.options["timestep_distribution_args"] = [f"{key}={value:g}" for key, value in numbers.items()]
    elif kind not in ("", "UNIFORM"):
        found.missing.append(f"timestep_distribution {kind} is not available yet")
    shift = run.number("timestep_shift", 1)
    found.options["timestep_shift"] = shift if shift != 1 else None


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
