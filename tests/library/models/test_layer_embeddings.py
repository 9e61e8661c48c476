"""Embeddings by layer (XTI): layers and their names, what each is given, and files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from full_size import full_size_model
from kinds import make_kind

from library.models.base import Model
from library.models.embeddings import find_embeddings
from library.models.layer_embeddings import (
    add_layer_embeddings,
    find_layer_embedding,
    layer_rows,
    layer_tensors,
)
from library.models.prompt_weights import WeightedTokenizer, encode_text
from library.models.weights import save_tensors
from library.problems import UserError

GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "textual_inversion.json").read_text())["xti"]


def rows_of(model: Model, vectors: int = 2) -> list[torch.Tensor]:
    """Other values for each layer."""
    (table,) = model.vocabulary.tables
    generator = torch.Generator().manual_seed(0)
    shape = (vectors, table.shape[1])
    return [torch.randn(shape, generator=generator) * 0.1 for _ in model.text_layers()]


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_the_sixteen_layers_have_sd_scripts_names_in_their_order(family: str) -> None:
    assert list(full_size_model(family).text_layer_names().items()) == list(map(tuple, GOLDEN["layers"]))


def test_ids_run_through_a_layers_vectors_and_then_to_the_next_layer(tiny_model: Model) -> None:
    names, paths = zip(*GOLDEN["layers"], strict=True)
    rows = [torch.zeros(2, tiny_model.vocabulary.tables[0].shape[1])] * len(names)
    ids = tiny_model.vocabulary.add_by_layer("hoge", paths, rows)
    order = [
        (name, number)
        for name in names
        for number in tiny_model.vocabulary.in_layer(torch.tensor(ids), names.index(name)).tolist()
    ]
    assert [number for _, number in order] == list(range(ids[0], ids[0] + 2 * len(names)))
    found = [f"hoge{'' if number % 2 == ids[0] % 2 else 1}_{name}" for name, number in order]
    assert found == GOLDEN["added_tokens_in_order"]
    after = tiny_model.vocabulary.add("other", 1)
    assert after == (ids[0] + 2 * len(names),)
    assert tiny_model.vocabulary.in_layer(torch.tensor([5, *after]), 3).tolist() == [5, *after]


@torch.no_grad()
@pytest.mark.parametrize("weighted", [False, True])
def test_each_layer_is_given_the_caption_with_its_own_vectors(weighted: bool) -> None:
    model, rows = make_kind("sd1"), rows_of(make_kind("sd1"))
    model.vocabulary.add_by_layer("<it>", model.text_layers(), rows)
    captions = ["a (photo:1.3) of <it>", "a dog"]

    def encoded(one: Model):
        tokenizer = one.tokenizer()
        return encode_text(one, (WeightedTokenizer.like(tokenizer) if weighted else tokenizer)(captions))

    condition = encoded(model)
    assert condition.by_layer is not None and list(condition.by_layer) == model.text_layers()
    for path, own in zip(model.text_layers(), rows, strict=True):
        plain = make_kind("sd1")
        plain.vocabulary.add("<it>", 2, [own])
        torch.testing.assert_close(condition.by_layer[path], encoded(plain).hidden)
    x, t = torch.linspace(-1, 1, 2 * 4 * 64).view(2, 4, 8, 8), torch.tensor([10, 900])
    drawn = model.predict(x, t, condition)
    everywhere_first = model.predict(x, t, replace(condition, by_layer=None))
    assert not torch.allclose(drawn[0], everywhere_first[0])
    torch.testing.assert_close(
        drawn[1], everywhere_first[1]
    )  # without the word all layers are given the same


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_files_have_a_tensor_for_each_layer(tiny_model: Model, tmp_path: Path, suffix: str) -> None:
    rows, path = rows_of(tiny_model), tmp_path / f"cat.{suffix}"
    save_tensors(path, layer_tensors(list(tiny_model.text_layer_names()), torch.cat(rows)))
    found = find_layer_embedding(path)
    assert (found.word, found.vectors) == ("cat", 2)
    assert all(map(torch.equal, layer_rows(tiny_model, found), rows))
    add_layer_embeddings(tiny_model, [path])
    (own,) = tiny_model.vocabulary.rows_of("cat")
    assert torch.equal(own, torch.cat(rows)) and tiny_model.vocabulary.layers == tuple(
        tiny_model.text_layers()
    )
    with pytest.raises(UserError, match="'cat' is there already: two embeddings have one name"):
        add_layer_embeddings(tiny_model, [path])
    with pytest.raises(UserError, match=r"is an embedding by layer \(XTI\); the generator takes it as --XTI"):
        find_embeddings(path)


def test_files_that_do_not_fit_are_told_in_one_line(tiny_model: Model, tmp_path: Path) -> None:
    names, path = list(tiny_model.text_layer_names()), tmp_path / "x.safetensors"
    (table,) = tiny_model.vocabulary.tables
    width = table.shape[1]

    def complaint(tensors: dict[str, torch.Tensor], model: Model = tiny_model) -> str:
        save_tensors(path, tensors)
        with pytest.raises(UserError) as caught:
            layer_rows(model, find_layer_embedding(path))
        return str(caught.value).removeprefix(f"{path}: ")

    plain = {name: torch.zeros(1, width) for name in names}
    assert complaint({"emb_params": torch.zeros(1, width)}).startswith("is no embedding by layer (XTI)")
    assert complaint(plain | {"MID": torch.zeros(2, width)}).startswith(
        "its layers have tensors of different"
    )
    wide = {name: torch.zeros(1, width + 1) for name in names}
    assert complaint(wide).startswith(f"has vectors of {width + 1} numbers, the model needs {width}")
    few = {name: plain[name] for name in names[1:]}
    assert complaint(few).startswith(f"is for {len(names) - 1} layers, the model has {len(names)}")
    assert complaint(plain | {"MID": torch.full((1, width), torch.nan)}).startswith(
        "holds values that are no"
    )
    assert complaint(plain, make_kind("sdxl")).startswith("words by layer (XTI) are for models with one text")
