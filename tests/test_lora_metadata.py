"""Every key of a LoRA's metadata, with the value that sd-scripts would write for the same run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from commands import make_pictures, run_here
from safetensors import safe_open

from library.models.sources import find_source
from library.training.saving.hashes import file_hashes

# What differs from run to run, or is computed from the file.
CHANGING = {
    "ss_session_id",
    "ss_training_started_at",
    "ss_training_finished_at",
    "sshs_model_hash",
    "sshs_legacy_hash",
    "modelspec.date",
}
OF_A_FOLDER = {
    "ss_reg_dataset_dirs": '{"2_thing": {"n_repeats": 2, "img_count": 1}}',
    "ss_batch_size_per_device": "2",
    "ss_total_batch_size": "6",
    "ss_resolution": "(64, 64)",
    "ss_color_aug": "False",
    "ss_flip_aug": "True",
    "ss_random_crop": "False",
    "ss_shuffle_caption": "True",
    "ss_enable_bucket": "False",
    "ss_bucket_no_upscale": "False",
    "ss_min_bucket_reso": "None",
    "ss_max_bucket_reso": "None",
    "ss_keep_tokens": "1",
    "ss_bucket_info": "null",
}
OF_THE_RUN = {
    "ss_output_name": "x",
    "ss_learning_rate": "0.001",
    "ss_text_encoder_lr": "0.0005",
    "ss_unet_lr": "None",
    "ss_num_train_images": "9",  # 3 x 3; one is held out
    "ss_num_validation_images": "1",
    "ss_num_reg_images": "2",  # 1 x 2, though 9 are drawn
    "ss_num_batches_per_epoch": "9",
    "ss_num_epochs": "1",
    "ss_max_train_steps": "1",
    "ss_epoch": "1",
    "ss_steps": "1",
    "ss_gradient_checkpointing": "False",
    "ss_gradient_accumulation_steps": "3",
    "ss_lr_scheduler": "constant",
    "ss_lr_warmup_steps": "0",
    "ss_network_module": "networks.lora",
    "ss_network_dim": "2",
    "ss_network_alpha": "1.0",
    "ss_network_dropout": "0.1",
    "ss_network_args": '{"conv_dim": "1", "rank_dropout": "0.1", "dropout": 0.1}',
    "ss_mixed_precision": "no",
    "ss_full_fp16": "False",
    "ss_lowram": "False",
    "ss_fp8_base": "False",
    "ss_fp8_base_unet": "False",
    "ss_v2": "False",
    "ss_base_model_version": "sd_v1",
    "ss_clip_skip": "1",
    "ss_max_token_length": "150",
    "ss_cache_latents": "False",
    "ss_seed": "3",
    "ss_noise_offset": "0.05",
    "ss_noise_offset_random_strength": "False",
    "ss_adaptive_noise_scale": "None",
    "ss_multires_noise_iterations": "None",
    "ss_multires_noise_discount": "0.3",
    "ss_ip_noise_gamma": "None",
    "ss_ip_noise_gamma_random_strength": "False",
    "ss_zero_terminal_snr": "False",
    "ss_min_snr_gamma": "5.0",
    "ss_debiased_estimation": "False",
    "ss_scale_weight_norms": "1.0",
    "ss_prior_loss_weight": "1.0",
    "ss_loss_type": "l2",
    "ss_huber_schedule": "snr",
    "ss_huber_c": "0.1",
    "ss_huber_scale": "1.0",
    "ss_training_comment": "a note",
    "ss_sd_scripts_commit_hash": "(unknown)",
    "ss_optimizer": "torch.optim.adamw.AdamW(weight_decay=0.02,eps=1e-07)",
    "ss_max_grad_norm": "1.0",
    "ss_caption_dropout_rate": "0.0",
    "ss_caption_dropout_every_n_epochs": "0",
    "ss_caption_tag_dropout_rate": "0.1",
    "ss_face_crop_aug_range": "None",
    "ss_resize_interpolation": "None",
    "ss_validation_seed": "7",
    "ss_validation_split": "0.25",
    "ss_max_validation_steps": "1",
    "ss_validate_every_n_epochs": "1",
    "ss_validate_every_n_steps": "None",
    "ss_sd_model_name": "sd1.safetensors",
    "ss_vae_name": "vae.safetensors",
    "ss_dataset_dirs": '{"3_thing": {"n_repeats": 3, "img_count": 3}}',
    "modelspec.sai_model_spec": "1.0.1",
    "modelspec.architecture": "stable-diffusion-v1/lora",
    "modelspec.implementation": "diffusers",
    "modelspec.implementation_version": "atelier/0.1.0",
    "modelspec.title": "A thing",
    "modelspec.resolution": "64x64",
    "modelspec.prediction_type": "epsilon",
    "modelspec.timestep_range": "10,1000",
    "modelspec.encoder_layer": "1",
    "modelspec.author": "somebody",
    "modelspec.description": "a thing; in two words",
    "modelspec.license": "CC0-1.0",
    "modelspec.tags": "thing, small",
    "modelspec.usage_hint": "say thing",
    "modelspec.thumbnail": "https://example.com/x.png",
    "modelspec.merged_from": "a, b",
    "modelspec.trigger_phrase": "thing",
    "modelspec.preprocessor": "canny",
    "modelspec.is_negative_embedding": "False",
}
TOLD = [
    word
    for key in (
        *("title", "author", "description", "license", "tags", "usage_hint", "thumbnail", "merged_from"),
        *("trigger_phrase", "preprocessor", "is_negative_embedding"),
    )
    for word in (f"--metadata_{key}", OF_THE_RUN[f"modelspec.{key}"])
]
ESSENTIAL = {
    *("ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha"),
    "ss_network_args",
}
TAGS = {"3_thing": {"one": 3, "two": 3, "three": 3}, "2_thing": {"one": 1, "two": 1, "three": 1}}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, shallow_kind) -> dict[str, Path]:
    """Four pictures, three times each; one regularization image, twice; a model, and a VAE of another's."""
    folder = tmp_path_factory.mktemp("places")
    make_pictures(folder / "train" / "3_thing", 4)
    make_pictures(folder / "reg" / "2_thing", 1, seed=5)
    vae = folder / "vae.safetensors"
    vae.write_bytes(shallow_kind("sd1", "safetensors").read_bytes())
    return {"folder": folder, "model": shallow_kind("sd1", "safetensors"), "vae": vae}


def metadata(places: dict[str, Path], *words: object) -> dict[str, str]:
    """Of a LoRA that was trained for a step."""
    out = places["folder"] / "out"
    run_here(
        "train_network.py",
        *("--pretrained_model_name_or_path", places["model"], "--vae", places["vae"]),
        *("--output_dir", out, "--output_name", "x", "--seed", 3, "--max_train_steps", 1),
        *("--learning_rate", 1e-3, "--text_encoder_lr", 5e-4, "--gradient_accumulation_steps", 3),
        *("--network_module", "networks.lora", "--network_dim", 2, "--network_dropout", 0.1),
        *("--network_args", "conv_dim=1", "rank_dropout=0.1", "--scale_weight_norms", 1),
        *("--clip_skip", 1, "--max_token_length", 150, "--noise_offset", 0.05, "--min_snr_gamma", 5),
        *("--training_comment", "a note", "--optimizer_args", "weight_decay=0.02", "eps=1e-7"),
        *("--max_validation_steps", 1, "--validate_every_n_epochs", 1, "--min_timestep", 10),
        *("--max_data_loader_n_workers", 0, *TOLD, *words),
    )
    with safe_open(out / "x.safetensors", "pt") as file:
        return file.metadata()


def of_folders(places: dict[str, Path]) -> list[object]:
    return [
        *("--train_data_dir", places["folder"] / "train", "--reg_data_dir", places["folder"] / "reg"),
        *("--caption_extension", ".txt", "--resolution", 64, "--train_batch_size", 2, "--flip_aug"),
        *("--shuffle_caption", "--keep_tokens", 1, "--caption_tag_dropout_rate", 0.1),
        *("--validation_split", 0.25, "--validation_seed", 7),
    ]


def test_every_key_of_a_run_on_folders(places: dict[str, Path]) -> None:
    found = metadata(places, *of_folders(places))
    tags = json.loads(found.pop("ss_tag_frequency"))
    assert {
        name: {tag: count for tag, count in counts.items() if "number" not in tag}
        for name, counts in tags.items()
    } == TAGS
    for prefix, path in (("sd_model", places["model"]), ("vae", places["vae"])):
        old, new = file_hashes(find_source(str(path)).path)
        assert (found.pop(f"ss_{prefix}_hash"), found.pop(f"ss_new_{prefix}_hash")) == (old, new)
        assert new == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.keys() >= CHANGING
    assert {key: value for key, value in found.items() if key not in CHANGING} == OF_THE_RUN | OF_A_FOLDER
    assert float(found["ss_training_started_at"]) <= float(found["ss_training_finished_at"])
    assert str(places["folder"]) not in json.dumps(found)


def test_every_key_of_a_run_on_a_dataset_file(places: dict[str, Path]) -> None:
    train, reg = places["folder"] / "train" / "3_thing", places["folder"] / "reg" / "2_thing"
    dataset = places["folder"] / "data.toml"
    dataset.write_text(f"""
[[datasets]]
resolution = 64
batch_size = 2
enable_bucket = true
min_bucket_reso = 32
max_bucket_reso = 128
bucket_reso_steps = 32
resize_interpolation = "area"
[[datasets.subsets]]
image_dir = '{train}'
num_repeats = 3
caption_extension = ".txt"
color_aug = true
[[datasets.subsets]]
image_dir = '{reg}'
is_reg = true
class_tokens = "thing"
""")
    found = metadata(places, "--dataset_config", dataset)
    assert found.keys() & OF_A_FOLDER.keys() == set()
    assert found.keys() >= OF_THE_RUN.keys()
    (described,) = json.loads(found["ss_datasets"])
    described.pop("tag_frequency")
    subset = {
        "img_count": 4,
        "num_repeats": 3,
        "color_aug": True,
        "flip_aug": False,
        "random_crop": False,
        "shuffle_caption": False,
        "keep_tokens": 0,
        "keep_tokens_separator": "",
        "secondary_separator": None,
        "enable_wildcard": False,
        "caption_prefix": None,
        "caption_suffix": None,
        "resize_interpolation": "area",
        "image_dir": "3_thing",
        "class_tokens": None,
        "is_reg": False,
        "metadata_file": None,
    }
    other = {"img_count": 1, "num_repeats": 1, "color_aug": False, "image_dir": "2_thing"}
    assert described == {
        "is_dreambooth": True,
        "batch_size_per_device": 2,
        "num_train_images": 12,
        "num_reg_images": 1,
        "resolution": [64, 64],
        "enable_bucket": True,
        "min_bucket_reso": 32,
        "max_bucket_reso": 128,
        "bucket_info": {
            "buckets": {"0": {"resolution": [64, 64], "count": 24}},
            "mean_img_ar_error": 0.0,
        },
        "resize_interpolation": "area",
        "subsets": [subset, subset | other | {"class_tokens": "thing", "is_reg": True}],
    }


def test_without_metadata_only_what_other_programs_need_is_written(places: dict[str, Path]) -> None:
    found = metadata(places, *of_folders(places), "--no_metadata")
    assert {key for key in found if key.startswith("ss_")} == ESSENTIAL
    assert {key.split(".")[0] for key in found} - ESSENTIAL == {
        "modelspec",
        "sshs_model_hash",
        "sshs_legacy_hash",
    }
