"""Texts of prompts in chunks: BREAK, weights, any length, ComfyUI's grammar."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from library.models.base import Model
from library.models.prompt_chunks import PromptTokenizer, encode_prompts, parse_comfy_weights, split_breaks
from library.models.prompt_weights import parse_weights
from library.models.text import BOS, EOS, Tokenizer

GRAMMAR = Path(__file__).parents[2] / "data" / "prompt_grammar.json"
ROWS = json.loads(GRAMMAR.read_text(encoding="utf-8"))
# Rows of sd-scripts' attention that differ here: why, and our value.
OTHERS = {
    "(a: 1.3)": ("AUTOMATIC1111 allows blanks before a weight today", [[("a", 1.3)]]),
    "(a:1.3 )": ("and behind it", [[("a", 1.3)]]),
    "(a:1.2.3)": ("crashes there", [[("a:1.2.3", 1.1)]]),
    "(a:1..2)": ("crashes there", [[("a:1..2", 1.1)]]),
    # The parser of weights alone; in a prompt `[a:1.2]` is editing, see test_editing.py.
}


@pytest.mark.parametrize(("prompt", "expected"), ROWS["attention"], ids=lambda value: repr(value)[:30])
def test_weights_are_those_of_sd_scripts(prompt: str, expected: list | str) -> None:
    found = split_breaks(parse_weights(prompt))
    if prompt in OTHERS:
        assert _plain(found) == _plain(OTHERS[prompt][1])
        return
    segments: list[list[tuple[str, float]]] = [[]]
    for text, weight in expected:
        if text == "BREAK":
            segments.append([])
        else:
            segments[-1].append((text, weight))
    assert _plain(found) == _plain(segments)


def _plain(segments: list) -> list:
    """Without empty pieces; weights to 12 digits."""
    return [
        [(text, pytest.approx(weight, rel=1e-12)) for text, weight in segment if text] for segment in segments
    ]


# Rows of sd-scripts' tokens that hold its faults: at BREAK it fills up to multiples of 77, not of 75.
SHIFTED = {
    "a BREAK b": [["B", "a", "E"], ["B", "b", "E"]],
    "a BREAK b BREAK c": [["B", "a", "E"], ["B", "b", "E"], ["B", "c", "E"]],
    "BREAK a": [["B", "E"], ["B", "a", "E"]],
    "a BREAK": [["B", "a", "E"], ["B", "E"]],
    "(a BREAK b:1.4)": [["B", "a", "E"], ["B", "b", "E"]],
    "BREAK BREAK a": [["B", "E"], ["B", "E"], ["B", "a", "E"]],
}


@pytest.mark.parametrize("row", ROWS["tokens"], ids=lambda row: f"{row['prompt'][:20]} {row['token_count']}")
def test_chunks_are_those_of_sd_scripts_and_break_begins_a_new_one(row: dict) -> None:
    prompt = row["prompt"]
    if "words)" in prompt:
        count = int(prompt.rpartition("(")[2].split()[0])
        ends = {81: ["(x:1.5)"]}.get(count, [])
        if any("b" in chunk for chunk in row["chunk_tokens"]):  # they go on with BREAK
            return
        prompt = " ".join(["w"] * (80 if ends else count) + ends)
    tokenizer = PromptTokenizer(Tokenizer())
    expected = SHIFTED.get(prompt) or [_expanded(chunk) for chunk in row["chunk_tokens"]]
    expected = expected[: row["max_embeddings_multiples"]]
    ids, weights = tokenizer([prompt], len(expected))
    names = {BOS: "B", EOS: "E"} | {Tokenizer().content_ids([word])[0][0]: word for word in "abcwx"}
    found = [[names[int(number)] for number in chunk] for chunk in ids[0]]
    assert [_ended(chunk) for chunk in found] == [_ended(chunk) for chunk in expected]
    assert weights.shape == (1, len(expected) * 75 + 2)
    if prompt == "(a BREAK b:1.4)":
        assert weights[0].nonzero().numel() == 152
        assert [int(place) for place in (weights[0] != 1).nonzero()] == [1, 76]


def _expanded(chunk: list[str]) -> list[str]:
    return [name for item in chunk for name in [item.partition("*")[0]] * int(item.partition("*")[2] or 1)]


def _ended(chunk: list[str]) -> list[str]:
    """Up to the first end; for SD 1.x the padding is the end token too."""
    return [name for name in chunk if name not in ("E", "P")]


@pytest.mark.parametrize("pad", [EOS, 0])
def test_every_chunk_has_its_own_start_end_and_padding(pad: int) -> None:
    (ids, weights) = PromptTokenizer(Tokenizer(pads=(pad,)))(["a BREAK " + "b " * 75 + "(c:2)"], 4)
    a, b, c = (Tokenizer().content_ids([word])[0][0] for word in "abc")
    assert ids[0].tolist() == [
        [BOS, a, EOS, *[pad] * 74],
        [BOS, *[b] * 75, EOS],
        [BOS, c, EOS, *[pad] * 74],
        [BOS, EOS, *[pad] * 75],
    ]
    assert weights[0].tolist() == [1.0] * 151 + [2.0] + [1.0] * 150


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a (b) c", [("a ", 1.0), ("b", 1.1), (" c", 1.0)]),
        ("(b:1.3)", [("b", 1.3)]),
        ("((a:1.2):1.5)", [("", 1.5), ("a", 1.2), ("", 1.5)]),
        ("(x (y):1.5)", [("x ", 1.5), ("y", 1.65), ("", 1.5)]),
        ("[a] [b:3]", [("[a] [b:3]", 1.0)]),
        ("\\(a\\)", [("(a)", 1.0)]),
        ("(a", [("(a", 1.0)]),
        ("a) (b)", [("a) ", 1.0), ("b", 1.1)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("(a: 1.4 )", [("a", 1.4)]),
    ],
)
def test_comfy_sets_weights(text: str, expected: list[tuple[str, float]]) -> None:
    merged: list[tuple[str, float]] = []
    for piece, weight in parse_comfy_weights(text):
        if merged and merged[-1][1] == pytest.approx(weight):
            merged[-1] = (merged[-1][0] + piece, weight)
        else:
            merged.append((piece, weight))
    assert [(piece, pytest.approx(weight)) for piece, weight in expected if piece] == [
        one for one in merged if one[0]
    ]


def test_comfy_moves_a_word_whole_to_the_next_chunk() -> None:
    word = "antidisestablishment"  # several tokens
    size = len(Tokenizer().content_ids([word])[0])
    assert 1 < size < 8
    ids, _ = PromptTokenizer(Tokenizer(), is_comfy=True)([f"{'a ' * 74}{word}"], 2)
    assert ids[0, 0, 75] == EOS
    assert ids[0, 1, 1 : 2 + size].tolist() == [*Tokenizer().content_ids([word])[0], EOS]
    plain, _ = PromptTokenizer(Tokenizer())([f"{'a ' * 74}{word}"], 2)
    assert plain[0, 0, 75] != EOS


def test_comfy_weighs_states_from_those_of_the_empty_text(any_model: Model) -> None:
    tokenizer = PromptTokenizer(any_model.tokenizer(), is_comfy=True)
    with torch.no_grad():
        weighed, plain, empty = (
            encode_prompts(any_model, tokenizer([text], 1), None, normalize="comfy")
            for text in ("a (b:1.5) c", "a b c", "")
        )
    expected = plain.hidden.clone()
    expected[0, 2] = empty.hidden[0, 2] + 1.5 * (plain.hidden[0, 2] - empty.hidden[0, 2])
    torch.testing.assert_close(weighed.hidden, expected)
    if plain.pooled is not None:
        torch.testing.assert_close(weighed.pooled, plain.pooled)
