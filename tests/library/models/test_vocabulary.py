"""Words added to a model: its tokenizers know them, its tables and files stay as they are."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from library.models.base import Model
from library.models.identity import identity_of
from library.models.prompt_weights import WeightedTokenizer, encode_text, training_tokenizer
from library.models.saving import Saving
from library.models.text import BOS, EOS, Tokenizer

FIRST = 49408  # CLIP has ids up to the end token's
A, PHOTO, OF, CAT = 320, 1125, 539, 2368


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """Without start, end and padding, of the first text encoder."""
    return tokenizer.content_ids([text])[0]


def tables(model: Model) -> list[Tensor]:
    return [encoder.get_input_embeddings().weight for encoder in model.text_encoders]


def values(model: Model, vectors: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(vectors, table.shape[1], generator=generator) for table in tables(model)]


def test_a_word_is_its_ids_and_the_text_around_it_is_what_it_was() -> None:
    words = {"<cat>": (FIRST, FIRST + 1), "Mika": (FIRST + 2,), "Mika Lee": (FIRST + 3,)}
    tokenizer = Tokenizer(words=words)
    assert ids_of(tokenizer, "a photo of <cat>, a cat") == [A, PHOTO, OF, FIRST, FIRST + 1, 267, A, CAT]
    assert ids_of(tokenizer, "<cat><cat>") == [FIRST, FIRST + 1] * 2
    assert ids_of(tokenizer, "<CAT>") == ids_of(Tokenizer(), "<cat>")  # as it is written
    assert ids_of(tokenizer, "Mika Lee") == [FIRST + 3]  # the longest
    assert ids_of(tokenizer, "Mika  Lee") == [FIRST + 2, *ids_of(Tokenizer(), "lee")]
    assert ids_of(tokenizer, "Mikado mika") == ids_of(Tokenizer(), "Mikado mika")  # whole words
    assert ids_of(tokenizer, "a_Mika, Mika.") == [*ids_of(Tokenizer(), "a_Mika,"), FIRST + 2, 269]
    assert tokenizer.content_ids(["", "Mika", ""]) == [[], [FIRST + 2], []]


def test_words_go_through_chunks_lengths_and_ends_like_others() -> None:
    tokenizer = Tokenizer(150, pads=(EOS, 0), words={"<x>": (FIRST, FIRST + 1)})
    caption = "cat " * 74 + "<x>"
    first, second = tokenizer([caption, "cat"])
    assert first.shape == (2, 2, 77)
    assert first[0, 0, 75] == second[0, 0, 75] == FIRST and first[0, 1, 1] == FIRST + 1
    assert tokenizer.lengths([caption, "a <x>"]) == [76, 3]
    assert tokenizer.ends(["a <x> cat", ""]) == [[1, 5, 5, 9], []]


def test_captions_without_added_words_are_tokenized_as_ever() -> None:
    captions = ["a photo of a cat", "", "A  Photo\tof\n a CAT ", "cat " * 200, "1girl, (red:1.2), <lora:x:1>"]
    for kind in (Tokenizer, WeightedTokenizer):
        plain, more = kind(150, pads=(EOS, 0)), kind(150, pads=(EOS, 0), words={"<x>": (FIRST,)})
        for one, other in zip(plain(captions), more(captions), strict=True):
            assert torch.equal(one, other)
        assert plain.ends(captions) == more.ends(captions)


def test_a_tokenizers_identity_tells_added_words() -> None:
    plain = Tokenizer(pads=(EOS, 0))
    assert plain.identity == "0cd456bc4a559993 (49407, 0) Tokenizer"  # as cache files have it
    assert WeightedTokenizer.like(plain).identity == "0cd456bc4a559993 (49407, 0) WeightedTokenizer"
    others = [{"<x>": (FIRST,)}, {"<y>": (FIRST,)}, {"<x>": (FIRST, FIRST + 1)}]
    identities = [Tokenizer(pads=(EOS, 0), words=words).identity for words in others]
    assert len({plain.identity, *identities}) == 4


def test_tokenizers_of_a_model_know_its_words_and_can_be_pickled(any_model: Model) -> None:
    before = any_model.tokenizer()
    assert any_model.vocabulary.add("<cat>", 2) == (FIRST, FIRST + 1)
    assert any_model.vocabulary.add("<dog>") == (FIRST + 2,)
    assert before.words == {}
    tokenizer = pickle.loads(pickle.dumps(any_model.tokenizer()))
    for ids in tokenizer(["<dog> and <cat>"]):
        assert ids[0, 0, :6].tolist() == [BOS, FIRST + 2, 537, FIRST, FIRST + 1, EOS]
    weighted = pickle.loads(pickle.dumps(training_tokenizer(any_model, 150, weighted=True)))
    *ids, weights = weighted(["(<cat>:1.5) [<dog>]"])
    assert ids[0][0, 0, 1:5].tolist() == [FIRST, FIRST + 1, FIRST + 2, EOS]
    assert weights[0, :5].tolist() == pytest.approx([1, 1.5, 1.5, 1 / 1.1, 1])


@torch.no_grad()
def test_a_word_with_the_rows_of_another_word_means_the_same(any_model: Model) -> None:
    """The rows of "photo of", at its places, in every text encoder."""
    plain = any_model.encode_text(any_model.tokenizer(150)(["a photo of a cat", "dog"]))
    rows = [table[[PHOTO, OF]].clone() for table in tables(any_model)]
    any_model.vocabulary.add("<other>", values=values(any_model, 1))
    any_model.vocabulary.add("<p>", 2, rows)
    tokens = any_model.tokenizer(150)(["a <p> a cat", "dog"])
    assert max(int(ids.max()) for ids in tokens) == FIRST + 2
    found = any_model.encode_text(tokens)
    assert torch.equal(found.hidden, plain.hidden)
    assert found.pooled is None if plain.pooled is None else torch.equal(found.pooled, plain.pooled)
    for one, other in zip(any_model.vocabulary.rows_of("<p>"), rows, strict=True):
        assert torch.equal(one, other)
    weighed = encode_text(any_model, WeightedTokenizer.like(any_model.tokenizer(150))(["(a <p> a cat:1.5)"]))
    assert not torch.equal(weighed.hidden, plain.hidden[:1])


def test_gradients_reach_the_new_rows_alone_and_a_step_leaves_the_tables_bit_for_bit(
    any_model: Model,
) -> None:
    kept = {name: tensor.clone() for name, tensor in any_model.state_dict().items()}
    any_model.vocabulary.add("<cat>", 2, values(any_model, 2))
    any_model.vocabulary.add("<unused>", 1, values(any_model, 1))
    any_model.requires_grad_(False).train()
    rows = any_model.vocabulary.rows_of("<cat>")
    any_model.vocabulary.requires_grad_(True)
    any_model.use_gradient_checkpointing(denoiser=False, text_encoders=True)
    optimizer = torch.optim.AdamW(rows, lr=0.1, weight_decay=0.0)
    before = [one.detach().clone() for one in rows]
    condition = any_model.encode_text(any_model.tokenizer()(["a photo of a <cat>", "dog"]))
    sum(states.square().sum() for states in any_model.text_outputs(condition).values()).backward()
    assert all(bool(row.any()) for one in rows for row in one.grad)
    assert not any(bool(one.grad.any()) for one in any_model.vocabulary.rows_of("<unused>"))
    optimizer.step()
    assert not any(torch.equal(one, old) for one, old in zip(rows, before, strict=True))
    after = {name: tensor for name, tensor in any_model.state_dict().items() if "vocabulary" not in name}
    assert after.keys() == kept.keys() and all(torch.equal(after[name], kept[name]) for name in kept)
    assert [p for p in any_model.parameters() if p.grad is not None] == list(
        any_model.vocabulary.parameters()
    )


def test_a_table_that_is_trained_learns_nothing_from_added_words(tiny_model: Model) -> None:
    tiny_model.vocabulary.add("<cat>", 1, values(tiny_model, 1))
    (table,) = tables(tiny_model)
    table.requires_grad_(True)
    hidden = tiny_model.encode_text(tiny_model.tokenizer()(["<cat>"])).hidden
    hidden[:, 1].square().sum().backward()  # looks back at the start and itself
    assert table.grad.any(-1).nonzero().flatten().tolist() == [BOS]


def test_what_is_saved_is_what_it_is_without_additions(
    any_model: Model, any_model_file: Path, any_model_folder: Path, tmp_path: Path
) -> None:
    any_model.vocabulary.add("<cat>", 2, values(any_model, 2))
    any_model.save(tmp_path / "x.safetensors", Saving("safetensors"))
    assert (tmp_path / "x.safetensors").read_bytes() == any_model_file.read_bytes()
    any_model.save(tmp_path / "x", Saving("diffusers_safetensors"))
    for path in any_model_folder.rglob("*.*"):
        assert (tmp_path / "x" / path.relative_to(any_model_folder)).read_bytes() == path.read_bytes()


def test_a_models_text_identity_tells_added_words_and_their_rows(any_model: Model) -> None:
    identities = [identity_of(any_model.text_weights())]
    any_model.vocabulary.add("<cat>", 1, values(any_model, 1))
    identities.append(identity_of(any_model.text_weights()))
    with torch.no_grad():
        any_model.vocabulary.rows_of("<cat>")[-1][0, 0] += 1
    identities.append(identity_of(any_model.text_weights()))
    assert len(set(identities)) == 3


def test_without_words_there_is_nothing_to_pay(any_model: Model) -> None:
    layers = [encoder.get_input_embeddings() for encoder in any_model.text_encoders]
    assert not any(layer._forward_pre_hooks or layer._forward_hooks for layer in layers)
    assert list(any_model.vocabulary.parameters()) == []
    assert not any("vocabulary" in name for name in any_model.state_dict())


def test_rows_follow_their_model_in_device_and_stay_float32(tiny_model: Model) -> None:
    tiny_model.vocabulary.add("<cat>")
    for part in tiny_model.parts.values():
        torch.nn.Module.to(part, torch.bfloat16)
    states = tiny_model.encode_text(tiny_model.tokenizer()(["<cat>"])).hidden
    assert states.dtype == torch.bfloat16
    (rows,) = tiny_model.vocabulary.rows_of("<cat>")
    assert rows.dtype == torch.float32
    tiny_model.to("meta")
    assert tiny_model.vocabulary.rows_of("<cat>")[0].device.type == "meta"
