"""The JSON of kohya_ss' pages -> Found. It is one flat table of about 250 keys, numbers often as texts."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from library.migration.commands import OTHER_FAMILY_KEYS, drop, read_words, refused_family
from library.migration.found import Found, Settings
from library.problems import UserError

_NAMES = {
    "optimizer": "optimizer_type",
    "max_resolution": "resolution",
    "sdxl_no_half_vae": "no_half_vae",
    "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs",
    "lora_network_weights": "network_weights",
}
_TO_NETWORK_ARGS = (
    *(
        "down_lr_weight",
        "mid_lr_weight",
        "up_lr_weight",
        "block_lr_zero_threshold",
        "block_dims",
        "block_alphas",
    ),
    *("conv_block_dims", "conv_block_alphas", "rank_dropout", "module_dropout"),
)
_LYCORIS = {
    "LoCon": "locon",
    "LoHa": "loha",
    "LoKr": "lokr",
    "BOFT": "boft",
    "Diag-OFT": "diag-oft",
    "DyLoRA": "dylora",
    "GLoRA": "glora",
    "iA3": "ia3",
    "Native Fine-Tuning": "full",
}
_KOHYA = {
    "LoRA-FA": "networks.lora_fa",
    "Kohya DyLoRA": "networks.dylora",
    "Kohya LoHa": "networks.loha",
    "Kohya LoKr": "networks.lokr",
}
# Arguments of LyCORIS: key on the page -> (argument, algorithms that have it; () for all).
_LYCORIS_ARGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "LyCORIS_preset": ("preset", ()),
    "use_tucker": ("use_tucker", ()),
    "use_cp": ("use_cp", ("lokr",)),
    "use_scalar": ("use_scalar", ()),
    "rank_dropout_scale": ("rank_dropout_scale", ()),
    "bypass_mode": ("bypass_mode", ()),
    "dora_wd": ("dora_wd", ()),
    "train_norm": ("train_norm", ()),
    "factor": ("factor", ("lokr",)),
    "decompose_both": ("decompose_both", ("lokr",)),
    "constrain": ("constraint", ("diag-oft", "boft")),
    "rescaled": ("rescaled", ("diag-oft", "boft")),
    "unit": ("block_size", ("dylora",)),
    "train_on_input": ("train_on_input", ("ia3",)),
}
# What the pages keep for themselves, or for accelerate.
_PAGE_ONLY = (
    *(
        "model_list",
        "logging",
        "save_as_bool",
        "LoRA_type",
        "LyCORIS_preset",
        "LyCORIS_conv_dim",
        "sdxl",
        "stop_text_encoder_training_pct",
    ),
    *(
        "num_cpu_threads_per_process",
        "dynamo_mode",
        "dynamo_use_dynamic",
        "dynamo_use_fullgraph",
        "dynamo_backend",
    ),
    *(
        "num_processes",
        "num_machines",
        "multi_gpu",
        "gpu_ids",
        "main_process_port",
        "extra_accelerate_launch_args",
    ),
    *(
        "noise_offset_type",
        "sample_prompts",
        "additional_parameters",
        "epoch",
        "lr_warmup",
        "conv_dim",
        "conv_alpha",
    ),
    *(
        "stop_text_encoder_training",
        "folders",
        "caption_metadata_filename",
        "latent_metadata_filename",
        "full_path",
    ),
    *(
        "batch_size_",
        "generate_caption_database",
        "generate_image_buckets",
        "image_folder",
        "use_latent_files",
    ),
    *("LyCORIS_conv_alpha", "train_data_dir_", "conv_block_dims_", "use_shell", "train_lora_ggpo"),
    *OTHER_FAMILY_KEYS,
)


def is_kohya_gui(document: Mapping[str, Any]) -> bool:
    """Whether a JSON document is such a file."""
    return "pretrained_model_name_or_path" in document and bool(
        {"LoRA_type", "max_resolution", "model_list", "num_cpu_threads_per_process"} & document.keys()
    )


def read_kohya_gui(document: Mapping[str, Any]) -> Found:
    """Raises UserError for another family of models and for values that are no numbers."""
    page = Settings(dict(document))
    for key in OTHER_FAMILY_KEYS:
        if page.is_on(key):
            raise refused_family(key)
    found = Found("kohya_ss")
    found.options = {
        _NAMES.get(key, key): value
        for key, value in document.items()
        if key not in _PAGE_ONLY and value not in ("", None)
    }
    _attention(found, page)
    _choose(found, page)
    _network(found, page)
    _noise(found, page)
    _time(found, page)
    for key in ("min_timestep", "max_timestep"):
        if page.number(key) == (1000 if key == "max_timestep" else 0):
            found.options.pop(key, None)
    if page.number("seed") == 0:
        found.options.pop("seed", None)
    found.prompts = [line for line in page.text("sample_prompts").splitlines() if line.strip()]
    found.options |= read_words(_split(page.text("additional_parameters"), "additional_parameters"))
    found.launch += _launch(page)
    if found.trainer.endswith("network.py"):
        for key in (*_TO_NETWORK_ARGS, *_LYCORIS_ARGS):
            found.options.pop(key, None)  # read above, as far as the kind of network has them
    _drop_page_keys(found)
    return found


def _attention(found: Found, page: Settings) -> None:
    kind = found.options.pop("xformers", "")
    if kind in ("xformers", True, "True", "true", 1):
        found.options["xformers"] = True
    elif kind == "sdpa":
        found.options["sdpa"] = True


def _choose(found: Found, page: Settings) -> None:
    """The trainer: which page wrote the file shows in its keys."""
    sdxl = page.is_on("sdxl") or page.is_on("sdxl_checkbox")
    if "LoRA_type" in page.values:
        found.trainer = "sdxl_train_network.py" if sdxl else "train_network.py"
    elif "num_vectors_per_token" in page.values or "token_string" in page.values:
        raise UserError.of("textual inversion", "is not available yet", "see docs/options.md for what is")
    elif sdxl:
        found.trainer = "sdxl_train.py"
    else:
        found.trainer = "fine_tune.py" if "train_text_encoder" in page.values else "train_db.py"


def _network(found: Found, page: Settings) -> None:
    kind = page.text("LoRA_type")
    if not kind:
        return
    arguments = _split(page.text("network_args").replace('"', "").replace("'", ""), "network_args")
    arguments += [
        f"{key}={page.text(key)}" for key in _TO_NETWORK_ARGS if page.text(key) not in ("", "0", "0.0")
    ]
    convolution = [f"{key}={page.text(key)}" for key in ("conv_dim", "conv_alpha") if page.number(key)]
    if kind in ("Standard", "Kohya LoCon"):
        found.options["network_module"] = "networks.lora"
        arguments += convolution if kind == "Kohya LoCon" else []
    elif kind.startswith("LyCORIS/") and kind[8:] in _LYCORIS:
        algorithm = _LYCORIS[kind[8:]]
        found.options["network_module"] = "lycoris.kohya"
        arguments += [f"algo={algorithm}", *convolution]
        for key, (name, algorithms) in _LYCORIS_ARGS.items():
            value = page.text(key)
            if value not in ("", "0", "0.0", "False", "false") and (
                not algorithms or algorithm in algorithms
            ):
                arguments.append(f"{name}={value}")
    elif kind in _KOHYA:
        found.options["network_module"] = _KOHYA[kind]
        arguments += convolution + (
            [f"unit={page.text('unit')}"] if kind == "Kohya DyLoRA" and page.text("unit") else []
        )
    else:
        raise UserError.of(f"LoRA_type {kind}", "is not known", "choose another kind of network")
    found.options["network_args"] = arguments
    for key in ("text_encoder_lr", "unet_lr"):
        if page.number(key) == 0 and key in found.options:
            del found.options[key]


def _noise(found: Found, page: Settings) -> None:
    original = ("noise_offset", "noise_offset_random_strength", "adaptive_noise_scale")
    several = ("multires_noise_iterations", "multires_noise_discount")
    kind = page.text("noise_offset_type").lower()
    drop(found, several if kind == "original" else original if kind.startswith("multires") else ())
    if not page.number("multires_noise_iterations"):
        found.options.pop("multires_noise_discount", None)


def _time(found: Found, page: Settings) -> None:
    """Steps and epochs, and what the page gives in per cent of them."""
    steps, epochs = int(page.number("max_train_steps")), int(page.number("epoch"))
    if steps:
        found.options["max_train_steps"] = steps
        found.options.pop("max_train_epochs", None)
    else:
        found.options.pop("max_train_steps", None)
        if epochs and not page.number("max_train_epochs"):
            found.options["max_train_epochs"] = epochs
            found.changes.append(f"epoch {epochs} is max_train_epochs {epochs}")
            if page.text("reg_data_dir"):
                found.changes.append(
                    "with regularization pictures kohya_ss counted an epoch twice: check the steps"
                )
    percent = page.number("lr_warmup")
    if not page.number("lr_warmup_steps"):
        found.options.pop("lr_warmup_steps", None)
        if percent and page.text("lr_scheduler") in ("constant", "adafactor"):
            found.idle.append("lr_warmup")
        elif percent:
            found.options["lr_warmup_steps"] = round(percent * steps / 100) if steps else percent / 100
            found.changes.append(
                f"lr_warmup {percent} % is lr_warmup_steps {found.options['lr_warmup_steps']}"
            )
    if (percent := page.number("stop_text_encoder_training")) and found.trainer == "train_db.py" and steps:
        found.options["stop_text_encoder_training"] = round(percent * steps / 100)
        found.changes.append(f"stop_text_encoder_training {percent} % is step {round(percent * steps / 100)}")
    elif percent:
        found.missing.append(
            "stop_text_encoder_training: give the step to train_db.py; networks train to the end"
        )


def _launch(page: Settings) -> list[str]:
    words = [
        f"--{key}={page.text(key)}"
        for key in ("num_processes", "num_machines", "num_cpu_threads_per_process")
        if page.number(key) > (0 if key.startswith("num_cpu") else 1)
    ]
    words += ["--multi_gpu"] if page.is_on("multi_gpu") else []
    words += [f"--gpu_ids={page.text('gpu_ids')}"] if page.text("gpu_ids") else []
    return words + _split(page.text("extra_accelerate_launch_args"), "extra_accelerate_launch_args")


def _drop_page_keys(found: Found) -> None:
    """Keys of a page that are no options and that were used above, or that only say how the page looks."""
    for key in [
        key
        for key in found.options
        if key.startswith(("sd3_", "flux1_", "flux_", "lumina_", "hunyuan_", "anima_", "LyCORIS_"))
    ]:
        del found.options[key]
    found.options.pop("sdxl_checkbox", None)
    if "LoRA_type" in found.options or not found.trainer.endswith("network.py"):
        drop(found, ("network_dim", "network_alpha"))


def _split(text: str, where: str) -> list[str]:
    try:
        return shlex.split(text.replace("\\", "\\\\"))
    except ValueError:
        raise UserError.of(where, "has a quotation mark without its twin", "close it") from None
