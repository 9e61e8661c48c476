"""What caches call a model's text encoders by: every weight that a caption's states come from."""

from __future__ import annotations

import pytest
import torch
from kinds import make_kind

from library.models.base import Model
from library.models.identity import identity_of

CAPTIONS = ["a photo of a cat", "dog " * 90]
# Of the tiny models, as they were when only the first text encoder counted: caches on disk hold these.
OLD = {"sd1": "f765aa61a24889eb", "sd2": "5fb1214f21de943f", "sd2-v": "5fb1214f21de943f"}


def states(model: Model) -> list[torch.Tensor]:
    condition = model.encode_text(model.tokenizer(150)(CAPTIONS))
    return list(model.text_outputs(condition).values())


@torch.no_grad()
def test_changing_any_weight_that_text_states_come_from_changes_the_identity(any_model: Model) -> None:
    plain, identity = states(any_model), identity_of(any_model.text_weights())
    used = set()
    for name, parameter in any_model.named_parameters():
        if not name.startswith("text_encoders."):
            continue
        kept = parameter.clone()
        parameter.add_(torch.linspace(-1, 1, parameter.numel()).view(parameter.shape))
        if not all(torch.equal(one, other) for one, other in zip(states(any_model), plain, strict=True)):
            used.add(name)
            assert identity_of(any_model.text_weights()) != identity, name
        parameter.copy_(kept)
    assert identity_of(any_model.text_weights()) == identity
    for number in range(len(any_model.text_encoders)):
        assert sum(name.startswith(f"text_encoders.{number}.") for name in used) > 15


def test_two_models_that_differ_in_the_second_text_encoder_have_different_identities() -> None:
    one, other = make_kind("sdxl"), make_kind("sdxl")
    assert identity_of(one.text_weights()) == identity_of(other.text_weights())
    with torch.no_grad():
        other.text_encoders[1].text_projection.weight[0, 0] += 1
    assert identity_of(one.text_weights()) != identity_of(other.text_weights())


@pytest.mark.parametrize("kind", OLD)
def test_caches_of_models_with_one_text_encoder_stay_valid(kind: str) -> None:
    assert identity_of(make_kind(kind).text_weights()) == OLD[kind]


def test_the_identity_tells_types_apart(tiny_model: Model) -> None:
    weights = tiny_model.part_weights("vae")
    halves = {name: tensor.half() for name, tensor in weights.items()}
    assert identity_of(weights) != identity_of(halves)
    assert identity_of({name: tensor.float() for name, tensor in halves.items()}) != identity_of(halves)
