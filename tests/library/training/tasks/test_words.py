"""What words begin with, what is refused, and that nothing else of a model changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from library.models.base import Model
from library.models.embeddings import find_embeddings
from library.models.saving import Saving
from library.models.text import Tokenizer, is_own_word
from library.models.weights import save_tensors
from library.options.objective import ObjectiveOptions
from library.options.textual_inversion import TextualInversionOptions
from library.problems import UserError
from library.training.tasks.embedding import EmbeddingTask

GOLDEN = json.loads((Path(__file__).parents[3] / "data" / "textual_inversion.json").read_text())


def make_task(model: Model, *words: str, **options: Any) -> EmbeddingTask:
    asked = TextualInversionOptions(token_string=words or ("<it>",), **options)
    return EmbeddingTask(model, ObjectiveOptions(), asked, learning_rate=1.0, clip_skip=None, seed=1)


def test_words_are_refused_and_tokenized_as_by_sd_scripts() -> None:
    for word, added, _ in GOLDEN["ti_token_exists_check"]["rows"]:
        assert is_own_word(word) == (added == 0), word
    for case in GOLDEN["ti_token_expansion"]["cases"]:
        word, ids = case["token_string"], tuple(case["ids"])
        tokenizer = Tokenizer(words={word: ids})
        for row in case["captions"]:
            inside = [f"a{word}", f"{word}s", *([f"{word}1"] if word[-1].isalnum() else [])]
            if word[0].isalnum() and any(part in row["caption"] for part in inside):
                continue  # part of another word; there the text stays what it is
            assert tokenizer.content_ids([row["caption"]])[0] == row["ids"][1:-1], row["caption"]


@pytest.mark.parametrize("case", GOLDEN["ti_init_word"]["cases"], ids=lambda case: case["init_word"])
def test_vectors_begin_as_the_tokens_of_a_word_in_turn(case: dict, any_model: Model) -> None:
    tables = [table.clone() for table in any_model.vocabulary.tables]
    make_task(any_model, init_word=(case["init_word"],), num_vectors_per_token=case["num_vectors"])
    for row, table in zip(any_model.vocabulary.rows_of("<it>"), tables, strict=True):
        assert torch.equal(row, table[case["row_source_ids"]])


def test_words_without_a_beginning_are_drawn_by_seed_and_name(any_model: Model) -> None:
    make_task(any_model, "<it>", "<its>", num_vectors_per_token=3)
    first, second = any_model.vocabulary.rows_of("<it>"), any_model.vocabulary.rows_of("<its>")
    for row, other, table in zip(first, second, any_model.vocabulary.tables, strict=True):
        assert row.shape == (3, table.shape[1]) and not torch.equal(row, other)
        assert 0.5 < row.std() / table.std() < 2


def test_the_words_alone_are_trained(any_model: Model) -> None:
    task = make_task(any_model, "<it>", "<its>", num_vectors_per_token=2)
    (group,) = task.param_groups()
    assert [id(p) for p in task.parameters() if p.requires_grad] == [id(p) for p in group["params"]]
    encoders = len(any_model.text_encoders)
    assert len(task.components()) == len(group["params"]) == 2 * encoders and task.trained_parts() == []
    before = {name: tensor.clone() for name, tensor in task.trained_tensors().items()}
    with torch.no_grad():
        for parameter in group["params"]:
            parameter += 1
    task.load_trained_tensors(before)
    assert all(torch.equal(before[name], tensor) for name, tensor in task.trained_tensors().items())
    with pytest.raises(UserError, match="the saved state: is of other words"):
        task.load_trained_tensors({"<it>.emb_params": torch.zeros(2, 2)})


def test_preserved_vectors_are_as_long_as_those_of_other_words(any_model: Model) -> None:
    task = make_task(any_model, num_vectors_per_token=2, preserve_norm=True)
    with torch.no_grad():
        for row in any_model.vocabulary.rows_of("<it>"):
            row *= 7
    task.after_step()
    for row, table in zip(any_model.vocabulary.rows_of("<it>"), any_model.vocabulary.tables, strict=True):
        assert row.norm(dim=1).tolist() == pytest.approx([float(table.norm(dim=1).median())] * 2, rel=1e-4)


def test_a_file_is_gone_on_from(any_model: Model, tmp_path: Path) -> None:
    task = make_task(any_model, num_vectors_per_token=2)
    save_tensors(tmp_path / "x.safetensors", task.file_tensors())
    any_model.vocabulary.words.clear()
    again = make_task(any_model, "<new>", num_vectors_per_token=2, weights=tmp_path / "x.safetensors")
    pairs = zip(again.file_tensors().values(), task.file_tensors().values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    with pytest.raises(UserError, match="has 2 vectors, --num_vectors_per_token is 1; give "):
        make_task(any_model, "<more>", weights=tmp_path / "x.safetensors")


def test_several_words_are_a_folder_of_files(any_model: Model, tmp_path: Path) -> None:
    task = make_task(any_model, "<it>", "its.old", save_model_as="safetensors")
    assert task.file_tensors() is None
    task.save(tmp_path / "words", Saving("safetensors", dtype=torch.float16))
    assert sorted(path.name for path in (tmp_path / "words").iterdir()) == [
        "it.safetensors",
        "itsold.safetensors",
    ]
    (found,) = find_embeddings(tmp_path / "words" / "it.safetensors")
    assert (found.word, found.vectors) == ("it", 1)
    names = TextualInversionOptions(token_string=("<con>", "<>")).file_names
    assert names == {"<con>": "con_", "<>": "word"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"token_string": ()}, "--token_string: is needed"),
        ({"token_string": ("my cat",)}, "--token_string: 'my cat' is not one word"),
        ({"token_string": ("<a>", "<a>")}, "--token_string: names a word twice"),
        (
            {"token_string": ("<a>", "<b>"), "init_word": ("cat",)},
            "--init_word: has 1 words for 2 --token_string",
        ),
        ({"token_string": ("<a>", "a")}, "--token_string: has words whose files would have one name"),
        ({"num_vectors_per_token": 0}, "--num_vectors_per_token: must be 1 or more"),
        ({"num_vectors_per_token": 76}, "--num_vectors_per_token: must be 75 or less"),
        ({"token_string": ("<a>", "<b>"), "weights": Path("x.pt")}, "--weights: is for one --token_string"),
        ({"use_object_template": True, "use_style_template": True}, "contradicts --use_style_template"),
    ],
)
def test_wrong_options_are_one_line(options: dict, said: str) -> None:
    with pytest.raises(UserError) as caught:
        TextualInversionOptions(**{"token_string": ("<it>",), **options})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"token_string": ("cat",)},
            "'cat' is one of the model's own words; choose one",
        ),
        ({"init_word": (" ",)}, "--init_word: ' ' has no tokens"),
        ({"weights": Path("none.pt")}, "none.pt: there is no such file"),
    ],
)
def test_what_the_model_does_not_take_is_one_line(options: dict, said: str, tiny_model: Model) -> None:
    asked = TextualInversionOptions(**{"token_string": ("<it>",), **options})
    with pytest.raises(UserError) as caught:
        EmbeddingTask(tiny_model, ObjectiveOptions(), asked, learning_rate=1.0, clip_skip=None, seed=1)
    assert said in str(caught.value) and len(caught.value.problems) == 1
