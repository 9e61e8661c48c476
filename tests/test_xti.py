"""Words by layer (XTI): trained, resumed, previewed and drawn with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import run_here
from PIL import Image
from trainers import options, two_buckets, weights

from library.models import load_model
from library.models.layer_embeddings import find_layer_embedding
from library.models.weights import load_tensors
from library.problems import UserError

SCRIPT = "train_textual_inversion_XTI.py"


def test_words_by_layer_are_learned_resumed_and_drawn_with(shallow_model_file: Path, tmp_path: Path) -> None:
    pictures = two_buckets(tmp_path / "data")
    (tmp_path / "prompts.txt").write_text("a <it> --w 64 --h 64 --s 1 --d 1\n")
    words = ("--token_string", "<it>", "--init_word", "a dog", "--num_vectors_per_token", 2)
    words += (
        "--use_object_template",
        "--save_state",
        "--save_model_as",
        "safetensors",
        "--validation_split",
        0.3,
    )
    looks = ("--sample_prompts", tmp_path / "prompts.txt", "--sample_at_first", "--sample_every_n_steps", 2)

    def train(out: str, *more: object) -> Path:
        common = (*words, *looks, "--max_train_steps", 3, *more)
        run_here(SCRIPT, *options(shallow_model_file, pictures, tmp_path / out, *common))
        return tmp_path / out

    whole = train("whole", "--save_every_n_steps", 1)
    steps = {weights(whole / f"x-step{step:08d}.safetensors") for step in (1, 2, 3)}
    part = train("part", "--resume", whole / "x-step00000001-state", "--max_data_loader_n_workers", 2)
    assert len(steps) == 3 and weights(part / "x.safetensors") == weights(
        whole / "x-step00000003.safetensors"
    )
    first, later = (next((whole / "sample").glob(f"*_{step:06d}_*")) for step in (0, 2))
    assert Image.open(first).tobytes() != Image.open(later).tobytes()

    learned, model = load_tensors(part / "x.safetensors"), load_model(shallow_model_file)
    (table,) = model.vocabulary.tables
    assert list(learned) == sorted(model.text_layer_names())
    assert len({tensor.numpy().tobytes() for tensor in learned.values()}) == len(
        learned
    )  # each learned its own
    assert all(tensor.shape == (2, table.shape[1]) for tensor in learned.values())
    resumed = ("--weights", part / "x.safetensors", "--learning_rate", 1e-9, "--init_word", "")
    again = load_tensors(train("again", *resumed) / "x.safetensors")
    assert all(torch.allclose(again[name], tensor, atol=1e-5) for name, tensor in learned.items())

    def draw(name: str, *more: object) -> bytes:
        asked = ("--prompt", "a (x:1.1)", "--W", 64, "--H", 64, "--steps", 2, "--seed", 1, *more)
        run_here("gen_img_diffusers.py", "--ckpt", shallow_model_file, "--outdir", tmp_path / name, *asked)
        (picture,) = (tmp_path / name).iterdir()
        return Image.open(picture).tobytes()

    assert draw("with", "--XTI_embeddings", part / "x.safetensors") != draw("without")


def test_the_files_of_others_are_opened_and_what_cannot_be_is_told(
    shallow_model_file: Path, shallow_kind: Callable[[str, str], Path], tmp_path: Path
) -> None:
    pictures = two_buckets(tmp_path / "data")
    words = ("--token_string", "<it>", "--caption_prefix", "<it>", "--max_train_steps", 1)
    run_here(SCRIPT, *options(shallow_model_file, pictures, tmp_path / "out", *words))
    path = tmp_path / "out" / "x.pt"  # sd-scripts' own format, which its scripts wait for
    assert find_layer_embedding(path).vectors == 1
    xl = options(shallow_kind("sdxl", "safetensors"), pictures, tmp_path / "xl", *words)
    with pytest.raises(UserError, match=r"words by layer \(XTI\) are for models with one text encoder"):
        run_here(SCRIPT, *xl)
    asked = ("--ckpt", shallow_model_file, "--prompt", "x", "--outdir", tmp_path / "no")
    with pytest.raises(UserError, match="is an embedding by layer"):
        run_here("gen_img_diffusers.py", *asked, "--textual_inversion_embeddings", path)
    more = ("--weights", path, "--num_vectors_per_token", 2)
    with pytest.raises(UserError, match="has 1 vector, --num_vectors_per_token is 2; give --num_vec"):
        run_here(SCRIPT, *options(shallow_model_file, pictures, tmp_path / "two", *words, *more))
