"""What cache files are named by: each thing that latents or text states depend on, and nothing else."""

from types import SimpleNamespace

import pytest
import torch
from kinds import make_kind

from library.models.prompt_weights import training_tokenizer
from library.options.caching import CachingOptions
from library.training.start.caching import Identities, _precision

ON_DISK = SimpleNamespace(
    caching=CachingOptions(cache_latents_to_disk=True, cache_text_encoder_outputs_to_disk=True)
)


@pytest.fixture
def model():
    return make_kind("sd1")


def first(module):
    return next(iter(module.parameters()))


def change_vae(model):
    with torch.no_grad():
        first(model.vae).view(-1)[0] += 1


def change_text_encoder(model):
    with torch.no_grad():
        first(model.text_encoders).view(-1)[-1] += 1


def change_denoiser(model):
    with torch.no_grad():
        first(model.denoiser).view(-1)[0] += 1


@pytest.mark.parametrize(
    ("change", "changed"),
    [(change_vae, {"vae"}), (change_text_encoder, {"text"}), (change_denoiser, set())],
)
def test_each_weight_counts_where_it_acts(model, change, changed):
    before = vars(Identities.of(model, ON_DISK))
    change(model)
    after = vars(Identities.of(model, ON_DISK))
    assert {name for name in before if before[name] != after[name]} == changed


def test_whatever_changes_ids_or_weights_of_a_caption_changes_the_tokenizers_name(model):
    plain = training_tokenizer(model, None, weighted=False)
    weighted = training_tokenizer(model, None, weighted=True)
    pads, words = type(plain)(pads=(0,)), type(plain)(words={"cat1": (49408,)})
    names = [one.identity for one in (plain, weighted, pads, words)]
    assert len(set(names)) == 4
    assert training_tokenizer(model, 75, weighted=False).identity == plain.identity


def test_the_type_of_weights_is_the_precision(model):
    assert _precision(model.vae) == "float32"
    model.vae.to(torch.bfloat16)
    assert _precision(model.vae) == "bfloat16"
