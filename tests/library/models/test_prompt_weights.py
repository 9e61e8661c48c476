import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from library.models.base import Condition, Model
from library.models.prompt_weights import WeightedTokenizer, encode_text, parse_weights, training_tokenizer
from library.models.text import BOS, EOS, Tokenizer
from library.models.vocabulary import Vocabulary

GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "weighted_prompts.json").read_text())
A, PHOTO, CAT = 320, 1125, 2368


@pytest.mark.parametrize("text", GOLDEN)
def test_weights_are_read_as_the_reference_reads_them(text: str) -> None:
    assert parse_weights(text) == [tuple(piece) for piece in GOLDEN[text]]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a) b]", [("a) b]", 1.0)]),
        ("a:2) b", [("a:2) b", 1.0)]),
        ("[a:2]", [("a:2", 1 / 1.1)]),
        ("(a:x)", [("a:x", 1.1)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("(a: 1.5 ) b", [("a", 1.5), (" b", 1.0)]),
        ("(a:-.5)(b:+2)(c:2.)", [("a", -0.5), ("bc", 2.0)]),
        ("(a:2)(b:2)", [("ab", 2.0)]),
        ("(a b:c:3)", [("a b:c", 3.0)]),
        (r"\[a\] \\ \n (b\):2)", [(r"[a] \ n ", 1.0), ("b)", 2.0)]),
        ("([a)]", [("a", 1.1 * (1 / 1.1))]),
        ("(a\nb)", [("a\nb", 1.1)]),
        ("()", [("", 1.0)]),
        ("[[(", [("", 1.0)]),
    ],
)
def test_brackets_that_are_odd_still_mean_something(text: str, pieces: list[tuple[str, float]]) -> None:
    assert parse_weights(text) == pieces


def test_every_position_gets_the_weight_of_its_piece() -> None:
    ids, weights = WeightedTokenizer()(["a (photo:1.5) cat", "cat"])
    assert ids[0, 0, :6].tolist() == [BOS, A, PHOTO, CAT, EOS, EOS]
    assert (weights.dtype, weights.shape) == (torch.float32, (2, 77))
    assert weights[0].tolist() == [1.0, 1.0, 1.5, *[1.0] * 74]
    assert weights[1].tolist() == [1.0] * 77


def test_text_without_brackets_gets_the_ids_of_a_plain_tokenizer() -> None:
    captions = ["a photo of a cat, 1girl", "", "cat " * 200]
    plain = Tokenizer(150, pads=(EOS, 0))(captions)
    *ids, weights = WeightedTokenizer(150, pads=(EOS, 0))(captions)
    assert all(torch.equal(one, other) for one, other in zip(ids, plain, strict=True))
    assert torch.equal(weights, torch.ones(3, 152))


def test_weights_follow_their_tokens_into_later_chunks_and_are_cut_with_them() -> None:
    tokenizer = WeightedTokenizer(150)
    caption = "cat " * 74 + "(photo:2) (cat:3) " + "a " * 80 + "(photo:4)"
    ids, weights = tokenizer([caption])
    assert (ids[0, 0, 75], ids[0, 1, 1]) == (PHOTO, CAT)  # the last of a chunk, the first of the next
    assert {n: w for n, w in enumerate(weights[0].tolist()) if w != 1} == {75: 2.0, 76: 3.0}
    assert tokenizer.lengths([caption, "(a cat:1.3)"]) == [157, 2]


def test_a_weighted_tokenizer_can_be_pickled_and_is_like_its_model(tiny_model: Model) -> None:
    tokenizer = training_tokenizer(tiny_model, 225, weighted=True)
    again = pickle.loads(pickle.dumps(tokenizer))
    one, other = tokenizer(["(a cat)"]), again(["(a cat)"])
    assert [tensor.shape for tensor in one] == [(1, 3, 77), (1, 227)]
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert type(training_tokenizer(tiny_model, None, weighted=False)) is Tokenizer


def test_training_multiplies_and_does_no_more(tiny_model: Model) -> None:
    plain = tiny_model.encode_text(tiny_model.tokenizer(150)(["a photo cat"])).hidden
    tokens = training_tokenizer(tiny_model, 150, weighted=True)(["a (photo:1.5) [cat]"])
    weighed = encode_text(tiny_model, tokens).hidden
    factors = torch.ones(1, 152, 1)
    factors[0, 2], factors[0, 3] = 1.5, 1 / 1.1
    assert torch.equal(weighed, plain * factors)


def test_every_kind_of_model_weighs_the_states_of_all_its_text_encoders(any_model: Model) -> None:
    plain = any_model.encode_text(any_model.tokenizer(150)(["a photo cat"]))
    tokens = training_tokenizer(any_model, 150, weighted=True)(["a (photo:1.5) cat"])
    weighed = encode_text(any_model, tokens)
    factors = torch.ones(1, 152, 1)
    factors[0, 2] = 1.5
    assert torch.equal(weighed.hidden, plain.hidden * factors)
    assert (weighed.pooled is None) if plain.pooled is None else torch.equal(weighed.pooled, plain.pooled)


def test_tokens_without_weights_are_encoded_as_ever(tiny_model: Model) -> None:
    tokens = tiny_model.tokenizer()(["a (photo:1.5) cat"])
    assert torch.equal(encode_text(tiny_model, tokens, 2).hidden, tiny_model.encode_text(tokens, 2).hidden)


@pytest.mark.parametrize(("mode", "measure"), [("original", torch.mean), ("abs", lambda x: x.abs().mean())])
def test_drawing_keeps_the_mean_of_each_text_whatever_stands_beside_it(
    tiny_model: Model, mode: str, measure
) -> None:
    texts = ["a (photo:1.5) cat", "(cat:0.2)", "dog"]
    tokenizer = WeightedTokenizer.like(tiny_model.tokenizer())
    plain = tiny_model.encode_text(tiny_model.tokenizer()(["a photo cat", "cat", "dog"])).hidden
    weighed = encode_text(tiny_model, tokenizer(texts), normalize=mode).hidden
    weights = tokenizer(texts)[-1]
    for number in range(3):
        torch.testing.assert_close(measure(weighed[number]), measure(plain[number]))
        factor = measure(plain[number]) / measure(plain[number] * weights[number, :, None])
        torch.testing.assert_close(weighed[number], plain[number] * weights[number, :, None] * factor)
        alone = encode_text(tiny_model, tokenizer(texts[number : number + 1]), normalize=mode).hidden
        torch.testing.assert_close(alone[0], weighed[number])
    assert torch.equal(weighed[2], plain[2])


class TwoEncoders:
    """Two text encoders whose states, 2 and 3 wide, are given."""

    def __init__(self, hidden: torch.Tensor) -> None:
        config = [type("Config", (), {"hidden_size": width}) for width in (2, 3)]
        self.text_encoders = [type("Encoder", (), {"config": entry}) for entry in config]
        self.hidden = hidden
        self.vocabulary = Vocabulary(nn.ModuleList())  # without added words

    change_text = Model.change_text

    def encode_text(self, tokens, clip_skip=None) -> Condition:
        assert [ids.shape for ids in tokens] == [(1, 1, 77), (1, 1, 77)]
        return Condition(self.hidden, pooled=torch.full((1, 3), 7.0))


def test_two_text_encoders_get_the_same_weights_and_keep_a_mean_each() -> None:
    hidden = torch.rand(1, 77, 5, dtype=torch.float32).to(torch.bfloat16)
    tokens = WeightedTokenizer(pads=(EOS, 0))(["a (cat:3)"])
    condition = encode_text(TwoEncoders(hidden), tokens, normalize="original")
    assert condition.hidden.dtype == torch.bfloat16
    assert torch.equal(condition.pooled, torch.full((1, 3), 7.0))
    for part in (slice(0, 2), slice(2, 5)):
        plain = hidden[..., part].float()
        weighed = plain * tokens[-1][..., None]
        expected = weighed * (plain.mean() / weighed.mean())
        assert torch.equal(condition.hidden[..., part], expected.to(torch.bfloat16))


def test_a_mean_of_0_leaves_no_hole() -> None:
    hidden = torch.ones(1, 77, 5)
    hidden[:, :38], hidden[:, 38] = -1, 0
    for text in ("cat", "(cat:3)"):
        tokens = WeightedTokenizer(pads=(EOS, 0))([text])
        found = encode_text(TwoEncoders(hidden), tokens, normalize="original").hidden
        assert found.isfinite().all()
