"""Embedding files of every program, read for the model that they were made for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from library.models.base import Model
from library.models.embeddings import add_embeddings, file_tensors, find_embeddings, rows_for
from library.models.weights import save_tensors
from library.problems import UserError


def rows(model: Model, vectors: int = 2) -> list[Tensor]:
    return [torch.randn(vectors, table.shape[1]) for table in model.vocabulary.tables]


def test_what_is_written_is_read(any_model: Model, tmp_path: Path) -> None:
    written = rows(any_model)
    for suffix in (".safetensors", ".pt", ".ckpt", ".bin"):
        path = tmp_path / f"my cat{suffix}"
        save_tensors(path, file_tensors(written))
        (found,) = find_embeddings(path)
        assert (found.word, found.vectors) == ("my cat", 2)
        assert all(torch.equal(*pair) for pair in zip(rows_for(any_model, found), written, strict=True))


def test_every_programs_file_of_one_text_encoder_is_read(tiny_model: Model, tmp_path: Path) -> None:
    (one,) = rows(tiny_model)
    contents = {
        "sd-scripts": {"emb_params": one},
        "onetrainer": {"emp_params": one, "emp_params_out": one},
        "onetrainer-bundle": {"bundle_emb.it.clip_l": one, "lora_unet_x.lora_down.weight": one},
        "diffusers": {"<it>": one},
        "a1111": {
            "string_to_token": {"*": 265},
            "string_to_param": {"*": one},
            "name": "it",
            "step": 100,
            "sd_checkpoint": None,
        },
        "a1111-bundle": {"bundle_emb.it.string_to_param.*": one},
    }
    for name, content in contents.items():
        path = tmp_path / f"{name}.pt"
        torch.save(content, path)
        (found,) = find_embeddings(path)
        assert found.word == ("it" if "bundle" in name else name)
        assert torch.equal(rows_for(tiny_model, found)[0], one)
    torch.save({"<a>": one[0], "<b>": one[1]}, tmp_path / "two.pt")  # cloneofsimo's lora
    first, second = find_embeddings(tmp_path / "two.pt")
    assert (first.word, second.word) == ("<a>", "<b>")
    assert torch.equal(rows_for(tiny_model, second)[0], one[1:])


def test_its_words_are_known_to_tokenizers_and_text_encoders(any_model: Model, tmp_path: Path) -> None:
    save_tensors(tmp_path / "cat.safetensors", file_tensors(rows(any_model, 3)))
    before = any_model.encode_text(any_model.tokenizer()(["a cat"])).hidden
    add_embeddings(any_model, [tmp_path / "cat.safetensors"])
    tokens = any_model.tokenizer()(["a cat"])
    assert [int((ids >= 49408).sum()) for ids in tokens] == [3] * len(tokens)
    assert not torch.equal(any_model.encode_text(tokens).hidden, before)
    with pytest.raises(UserError, match="two embeddings have one name; rename the file"):
        add_embeddings(any_model, [tmp_path / "cat.safetensors"])


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (
            {"emb_params": torch.zeros(2, 1024)},
            "of 1024 numbers, as for SD 2.x; the model needs 32",
        ),
        ({"clip_l": torch.zeros(1, 32), "clip_g": torch.zeros(1, 40)}, "for two text encoders, as SDXL has"),
        ({"emb_params": torch.full((1, 32), torch.nan)}, "holds values that are no numbers"),
        ({"emb_params": torch.zeros(3)}, "has vectors of 3 numbers"),
        ({"emb_params": torch.zeros(1, 2, 32)}, "is no embedding that is known"),
        ({"emb_params": torch.zeros(0, 32)}, "is no embedding that is known"),
        ({"emb_params": torch.zeros(5000, 1)}, "is no embedding that is known"),
        ({"a.b": torch.zeros(2), "c.d": torch.zeros(2)}, "is no embedding that is known: it holds 2 names"),
        (
            {"lora_unet_x.lora_up.weight": torch.zeros(2, 2), "x.alpha": torch.zeros(1)},
            "is a LoRA, not",
        ),
        ({"control_model.a": torch.zeros(2), "control_model.b": torch.zeros(2)}, "is a ControlNet, not"),
        ({"model.diffusion_model.a": torch.zeros(2), "model.b": torch.zeros(2)}, "is a checkpoint, not"),
    ],
)
def test_what_is_no_embedding_for_the_model_is_one_line(
    tensors: dict[str, Tensor], said: str, tiny_model: Model, tmp_path: Path
) -> None:
    save_tensors(tmp_path / "x.safetensors", tensors)
    with pytest.raises(UserError, match=said) as caught:
        add_embeddings(tiny_model, [tmp_path / "x.safetensors"])
    assert len(caught.value.problems) == 1 and tiny_model.vocabulary.words == {}
