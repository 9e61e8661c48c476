import json
import pickle
from pathlib import Path

import pytest
import torch

from library.models.base import Model
from library.models.text import BOS, EOS, Tokenizer, chunk_ids, join_chunks

GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "chunking.json").read_text())


@pytest.mark.parametrize(
    ("caption", "ids"),
    [
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("A  Photo\tof\n a CAT ", [320, 1125, 539, 320, 2368]),
        ("1girl, (red:1.2)", [272, 1611, 267, 263, 736, 281, 272, 269, 273, 264]),
        ("É", [4166]),
        ("e\u0301", [4166]),  # the same letter, written as two characters
        ("", []),
    ],
)
def test_captions_get_the_ids_of_clip(caption: str, ids: list[int]) -> None:
    (tokens,) = Tokenizer()([caption])
    assert tokens.dtype == torch.int64
    assert tokens.tolist() == [[[BOS, *ids, EOS, *[EOS] * (75 - len(ids))]]]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"pad {case['pad']}, {case['tokens']} tokens")
def test_long_captions_are_cut_into_the_chunks_of_sd_scripts(case: dict) -> None:
    rows = chunk_ids(list(range(1000, 1000 + case["tokens"])), 3, case["pad"])
    assert [len(row) for row in rows] == [77, 77, 77]
    assert [{"first3": row[:3], "last3": row[-3:]} for row in rows] == case["chunks"]


@pytest.mark.parametrize(("length", "chunks"), [(None, 1), (75, 1), (150, 2), (225, 3)])
def test_the_longest_caption_decides_how_many_chunks_there_are(length: int | None, chunks: int) -> None:
    (tokens,) = Tokenizer(length)(["cat " * 300, "cat"])
    assert tokens.shape == (2, chunks, 77)
    assert (tokens[0, :, 1:-1] == 2368).all()
    assert (tokens[:, :, 0] == BOS).all() and (tokens[:, :, -1] == EOS).all()


def test_every_text_encoder_gets_its_own_padding() -> None:
    first, second = Tokenizer(pads=(EOS, 0))(["cat"])
    assert first[0, 0, :4].tolist() == [BOS, 2368, EOS, EOS]
    assert second[0, 0, :4].tolist() == [BOS, 2368, EOS, 0]


def test_repeated_captions_are_tokenized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(
        "library.models.text.content_ids", lambda captions: seen.append(captions) or [[7]] * len(captions)
    )
    tokenizer = Tokenizer()
    tokenizer(["a", "b", "a"])
    (tokens,) = tokenizer(["b", "c"])
    assert seen == [["a", "b"], ["c"]]
    assert tokens[:, 0, 1].tolist() == [7, 7]


def test_a_pickled_tokenizer_is_small_and_gives_the_same_ids() -> None:
    tokenizer = Tokenizer(150)
    expected = tokenizer(["a cat"])
    data = pickle.dumps(tokenizer)
    assert len(data) < 1000
    assert torch.equal(pickle.loads(data)(["a cat"])[0], expected[0])


def test_lengths_count_the_tokens_without_start_and_end() -> None:
    assert Tokenizer().lengths(["a photo of a cat", "", "cat " * 80]) == [5, 0, 80]


def test_tokens_end_where_the_text_they_stand_for_ends() -> None:
    caption = "A photo of  an émigré, long-haired \N{GRINNING FACE}"
    ends = Tokenizer().ends([caption, ""])
    assert [len(row) for row in ends] == Tokenizer().lengths([caption, ""])
    words = [caption[start:end].strip() for start, end in zip([0, *ends[0]], ends[0], strict=False)]
    assert words == [
        *("A", "photo", "of", "an", "é", "migr", "é", ",", "long", "-", "haired", "\N{GRINNING FACE}")
    ]


def test_chunks_are_joined_with_the_first_start_and_the_last_end() -> None:
    hidden = torch.arange(2 * 77.0).view(1, 2, 77, 1)
    joined = join_chunks(hidden)[0, :, 0].tolist()
    assert joined == [0, *range(1, 76), *range(78, 153), 153]


@pytest.mark.parametrize("skip", [None, 1, 2])
def test_clip_skip_takes_an_earlier_layer_and_the_final_norm(tiny_model: Model, skip: int | None) -> None:
    tokens = tiny_model.tokenizer()(["a photo of a cat", "dog"])
    text_encoder = tiny_model.text_encoders[0]
    out = text_encoder(tokens[0].squeeze(1), output_hidden_states=True)
    if skip in (None, 1):
        expected = out.last_hidden_state
    else:
        expected = text_encoder.final_layer_norm(out.hidden_states[-skip])
    condition = tiny_model.encode_text(tokens, skip)
    assert condition.pooled is None
    assert torch.equal(condition.hidden, expected)


def test_long_captions_are_encoded_chunk_by_chunk(tiny_model: Model) -> None:
    (tokens,) = tiny_model.tokenizer(150)(["a photo of a cat " * 20, "dog"])
    hidden = tiny_model.encode_text((tokens,)).hidden
    assert hidden.shape == (2, 152, 32)
    first, second = (tiny_model.encode_text((tokens[:, i : i + 1],)).hidden for i in (0, 1))
    torch.testing.assert_close(hidden, torch.cat([first[:, :76], second[:, 1:]], dim=1))
