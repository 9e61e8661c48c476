"""Words for each trainer on two small buckets of pictures, and what is compared of its results."""

from __future__ import annotations

from pathlib import Path

import torch
from commands import make_pictures
from PIL import Image, ImageOps
from safetensors import safe_open


def two_buckets(folder: Path) -> Path:
    """Two buckets, one of five pictures and one of two; repeats 1."""
    make_pictures(folder / "1_sks thing", 5)
    make_pictures(folder / "1_sks thing", 2, size=(96, 32), seed=9)
    return folder


def hints_of(pictures: Path) -> Path:
    """A folder beside the pictures with a conditioning image for each: its negative."""
    folder = pictures.with_name(f"{pictures.name} hints")
    folder.mkdir(exist_ok=True)
    for path in pictures.rglob("*.png"):
        ImageOps.invert(Image.open(path).convert("RGB")).save(folder / path.name)
    return folder


def options(model: Path, pictures: Path, out: Path, *more: object) -> list[object]:
    return [
        *("--pretrained_model_name_or_path", model, "--train_data_dir", pictures, "--output_dir", out),
        *("--resolution", 64, "--enable_bucket", "--min_bucket_reso", 32, "--max_bucket_reso", 128),
        *("--bucket_reso_steps", 32, "--caption_extension", ".txt", "--shuffle_caption", "--flip_aug"),
        *("--caption_tag_dropout_rate", 0.2, "--train_batch_size", 2, "--learning_rate", 1e-3, "--seed", 3),
        *("--output_name", "x", "--max_data_loader_n_workers", 0, *more),
    ]


def of_trainer(script: str) -> list[object]:
    """What a trainer needs besides: everything that can be trained is."""
    drops = (
        "--network_args",
        "conv_dim=2",
        "rank_dropout=0.1",
        "module_dropout=0.1",
        "--network_dropout",
        0.1,
    )
    network = ["--network_module", "networks.lora", "--network_dim", 4, *drops]
    word = ["--token_string", "<it>", "--init_word", "a dog", "--num_vectors_per_token", 2]
    word += ["--use_style_template", "--save_model_as", "safetensors", "--preserve_norm"]
    lllite = ["--cond_emb_dim", 8, "--network_dim", 4, "--network_dropout", 0.1]
    texts = ["--use_safetensors", "--train_text_encoder"]
    return {
        "train_network.py": network,
        "sdxl_train_network.py": network,
        "train_textual_inversion.py": word,
        "sdxl_train_textual_inversion.py": word,
        "train_textual_inversion_XTI.py": word,
        "train_control_net_lllite.py": lllite,
        "sdxl_train_control_net_lllite.py": lllite,
        "train_control_net.py": [],
        "sdxl_train_control_net.py": ["--control_net_lr", 1e-2],
        "train_db.py": ["--use_safetensors", "--stop_text_encoder_training", 5],
        "fine_tune.py": texts,
        "sdxl_train.py": [*texts, "--learning_rate_te1", 1e-4, "--block_lr", BLOCK_RATES],
    }[script]


BLOCK_RATES = ",".join(["0", *["1e-3"] * 5, "0", *["5e-4"] * 6])  # of a shallow SDXL; two are not trained


def weights(path: Path) -> bytes:
    """A safetensors file's tensors, without the metadata, which holds dates."""
    with safe_open(path, "pt") as file:
        tensors = (file.get_tensor(key) for key in sorted(file.keys()))
        return b"".join(tensor.view(-1).view(torch.uint8).numpy().tobytes() for tensor in tensors)
