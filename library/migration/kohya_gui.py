"""The JSON of kohya_ss' pages -> Found. It is one flat table of about 250 keys, numbers often as texts."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from library.migration.commands import OTHER_FAMILY_KEYS, drop, read_words, refused_family
from library.migration.found import Found, Settings
from library.options.unset import asks_nothing
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
# What is read below, or is for accelerate, the folders' tools or the page itself.
_PAGE_ONLY = """
    LoRA_type LyCORIS_conv_dim LyCORIS_conv_alpha conv_dim conv_alpha sdxl sdxl_checkbox model_list logging
    save_as_bool num_cpu_threads_per_process num_processes num_machines multi_gpu gpu_ids main_process_port
    extra_accelerate_launch_args dynamo_backend dynamo_mode dynamo_use_dynamic dynamo_use_fullgraph
    noise_offset_type sample_prompts additional_parameters epoch lr_warmup stop_text_encoder_training
    stop_text_encoder_training_pct use_wandb train_dir image_folder caption_metadata_filename
    latent_metadata_filename use_latent_files full_path create_caption create_buckets
    generate_caption_database generate_image_buckets folders use_shell train_lora_ggpo
"""
# What the pages write where nothing was chosen.
_UNCHOSEN: dict[str, object] = {
    "conv_dim": 1,
    "conv_alpha": 1,
    "LyCORIS_preset": "full",
    "factor": -1,
    "unit": 1,
    "train_on_input": True,
    "dynamo_backend": "no",
    "dynamo_mode": "default",
    "caption_metadata_filename": "meta_cap.json",
    "latent_metadata_filename": "meta_lat.json",
    "use_latent_files": "No",
}
_FAMILIES = ("sd3_", "flux1_", "flux_", "lumina_", "hunyuan_", "anima_")


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
    not_options = {*_PAGE_ONLY.split(), *OTHER_FAMILY_KEYS, *_LYCORIS_ARGS}
    not_options |= {key for key in document if key.startswith(_FAMILIES)}
    if "LoRA_type" in document:
        not_options.update(_TO_NETWORK_ARGS)
    found = Found("kohya_ss")
    # 0 and False are what the pages write for what is not given.
    found.options = {
        _NAMES.get(key, key): value
        for key, value in document.items()
        if key not in not_options and not asks_nothing(value)
    }
    _attention(found, page)
    _choose(found, page)
    _network(found, page)
    _pictures(found, page)
    _noise(found, page)
    _time(found, page)
    if page.number("max_timestep") == 1000:
        found.options.pop("max_timestep", None)
    if page.is_on("use_wandb"):
        found.options.setdefault("log_with", "wandb")
    found.prompts = [line for line in page.text("sample_prompts").splitlines() if line.strip()]
    found.options |= read_words(_split(page.text("additional_parameters"), "additional_parameters"))
    found.launch += _launch(page)
    page.ignore(*not_options)
    page.unchosen(_UNCHOSEN)
    found.idle += page.idle()
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
    elif {"num_vectors_per_token", "token_string", "init_word"} & page.values.keys():
        found.trainer = "sdxl_train_textual_inversion.py" if sdxl else "train_textual_inversion.py"
        kind = str(found.options.pop("template", "")).split(" ")[0]  # or "caption"
        if kind in ("object", "style"):
            found.options[f"use_{kind}_template"] = True
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
    names = () if kind == "Standard" else ("conv_dim", "conv_alpha")
    convolution = [f"{key}={page.text(key)}" for key in names if page.number(key)]
    if kind in ("Standard", "Kohya LoCon"):
        found.options["network_module"] = "networks.lora"
        arguments += convolution
    elif kind.startswith("LyCORIS/") and kind[8:] in _LYCORIS:
        algorithm = _LYCORIS[kind[8:]]
        found.options["network_module"] = "lycoris.kohya"
        arguments += [f"algo={algorithm}", *convolution]
        for key, (name, algorithms) in _LYCORIS_ARGS.items():
            if (not algorithms or algorithm in algorithms) and not asks_nothing(value := page.text(key)):
                arguments.append(f"{name}={value}")
    elif kind in _KOHYA:
        found.options["network_module"] = _KOHYA[kind]
        arguments += convolution + (
            [f"unit={page.text('unit')}"] if kind == "Kohya DyLoRA" and page.text("unit") else []
        )
    else:
        raise UserError.of(f"LoRA_type {kind}", "is not known", "choose another kind of network")
    found.options["network_args"] = arguments


def _pictures(found: Found, page: Settings) -> None:
    """The page for fine-tuning names a folder of images, and the files that its tools write."""
    if found.trainer not in ("fine_tune.py", "sdxl_train.py") or not (folder := page.text("train_dir")):
        return
    is_latent = page.text("use_latent_files").lower() in ("yes", "true", "1")
    names = ("latent_metadata_filename", "meta_lat.json"), ("caption_metadata_filename", "meta_cap.json")
    key, default = names[0 if is_latent else 1]
    found.options["in_json"] = f"{folder.rstrip('/')}/{page.text(key) or default}"
    if images := page.text("image_folder"):
        found.options["train_data_dir"] = images


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
    words += (
        [f"--main_process_port={page.text('main_process_port')}"] if page.number("main_process_port") else []
    )
    words += ["--multi_gpu"] if page.is_on("multi_gpu") else []
    words += [f"--gpu_ids={page.text('gpu_ids')}"] if page.text("gpu_ids") else []
    return words + _split(page.text("extra_accelerate_launch_args"), "extra_accelerate_launch_args")


def _split(text: str, where: str) -> list[str]:
    try:
        return shlex.split(text.replace("\\", "\\\\"))
    except ValueError:
        raise UserError.of(where, "has a quotation mark without its twin", "close it") from None
