"""Drawing: the same pictures as diffusers, whatever they are drawn with."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
)
from kinds import make_kind
from PIL import Image

from library.generation import texts
from library.generation.decoding import decoded
from library.generation.generate import generate
from library.generation.known_texts import KnownTexts
from library.generation.request import PromptRequest
from library.models import load_model
from library.models.base import Model
from library.options.multipliers import Multiplier

CPU = torch.device("cpu")
REQUEST = PromptRequest("a cat on a mat", "blurry", width=64, height=64, steps=4, scale=5.0, seed=3)
# What the published scheduler_config.json of SD 1.5 says about noising.
SD1_CONFIG = json.loads((Path(__file__).parents[2] / "data" / "sd1_scheduler_config.json").read_text())
SCHEDULERS = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_a": EulerAncestralDiscreteScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
}


@pytest.fixture(scope="module")
def model(tiny_model_file: Path) -> Model:
    return load_model(tiny_model_file)


@pytest.fixture(scope="module")
def pipeline(tiny_model_folder: Path) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model_folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def gap(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of a pixel's channel, in levels of 255."""
    return int(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max())


@pytest.mark.parametrize("scale", [5.0, 1.0])
@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_a_picture_is_that_of_diffusers_for_the_same_seed(
    model: Model, pipeline: StableDiffusionPipeline, sampler: str, scale: float
) -> None:
    request = dataclasses.replace(REQUEST, sampler=sampler, scale=scale, width=72)
    pipeline.scheduler = SCHEDULERS[sampler].from_config(SD1_CONFIG)
    theirs = pipeline(
        request.prompt,
        negative_prompt=request.negative,
        width=request.width,
        height=request.height,
        num_inference_steps=request.steps,
        guidance_scale=request.scale,
        generator=torch.Generator("cpu").manual_seed(request.seed),
    ).images[0]
    [ours] = generate(model, [request], device=CPU)
    assert ours.size == (72, 64)
    assert np.asarray(ours).std() > 0
    assert gap(ours, theirs) <= 1


@pytest.mark.parametrize("sampler", ["ddim", "euler_a"])
def test_a_picture_is_the_same_alone_and_in_company(model: Model, sampler: str) -> None:
    request = dataclasses.replace(REQUEST, sampler=sampler)
    others = [
        dataclasses.replace(request, prompt="a dog", scale=2.0, seed=4),
        dataclasses.replace(request, prompt="word " * 80),
        dataclasses.replace(request, height=128),
        dataclasses.replace(request, scale=1.0),
    ]
    [alone] = generate(model, [request], device=CPU)
    company = generate(model, [*others, request], device=CPU)
    assert [picture.size for picture in company] == [(64, 64), (64, 64), (64, 128), (64, 64), (64, 64)]
    assert gap(alone, company[-1]) <= 1
    assert all(gap(alone, other) > 1 for other in company[:2] + company[3:4])


def test_a_text_has_as_many_chunks_as_it_needs_or_is_cut_with_a_warning(
    model: Model, capsys: pytest.CaptureFixture
) -> None:
    texts._warn_of_cut.cache_clear()
    words = ["", "cat " * 75, "cat " * 76, "cat " * 700, "a BREAK b BREAK"]
    assert [texts.TextSettings().chunks(model, [text]) for text in words] == [1, 1, 2, 10, 3]
    assert texts.TextSettings().chunks(model, words) == 10
    assert capsys.readouterr().err == ""
    assert [texts.TextSettings(max_chunks=2).chunks(model, [text]) for text in words[1:4] * 2] == [
        1,
        2,
        2,
    ] * 2
    assert capsys.readouterr().err.count("takes 10 chunks of 75 tokens; what follows the first 2") == 1


def test_the_last_word_of_a_very_long_prompt_counts_unless_it_is_cut(model: Model) -> None:
    long = [dataclasses.replace(REQUEST, prompt="word " * 300 + end) for end in ("cat", "dog")]
    first, second = generate(model, long, device=CPU)
    assert first.tobytes() != second.tobytes()
    first, second = generate(model, long, device=CPU, max_chunks=4)
    assert first.tobytes() == second.tobytes()


def test_each_text_is_encoded_once_however_many_steps_and_pictures_have_it(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    encode = texts.encode_prompts

    def counted(model: Model, tokens: tuple, clip_skip: int | None, *, normalize: str) -> object:
        encoded.append(len(tokens[0]))
        return encode(model, tokens, clip_skip, normalize=normalize)

    monkeypatch.setattr(texts, "encode_prompts", counted)
    edited = dataclasses.replace(REQUEST, prompt="a [cat|dog] [b:c:0.5]", negative="bad", steps=6, scale=2)
    generate(model, [edited, dataclasses.replace(edited, seed=9)], device=CPU)
    assert encoded == [1 + 4]
    known = KnownTexts()
    other = dataclasses.replace(edited, prompt="a [cat|dog]")
    plain = generate(model, [other], device=CPU)[0]
    encoded.clear()
    for request in (edited, other, edited):  # "bad" is known to the second
        drawn = generate(model, [request], device=CPU, known=known)[0]
        if request is other:
            assert gap(drawn, plain) <= 1
    assert encoded == [5, 2]
    strong = dataclasses.replace(edited, strengths=(Multiplier(0.5),))
    generate(model, [strong], device=CPU, known=known)
    assert encoded == [5, 2, 5]


def test_editing_that_changes_nothing_or_at_once_draws_the_plain_prompt(model: Model) -> None:
    def picture(prompt: str) -> Image.Image:
        return generate(model, [dataclasses.replace(REQUEST, prompt=prompt, steps=6)], device=CPU)[0]

    cat, dog = picture("a cat"), picture("a dog")
    assert gap(picture("a [cat:dog:99]"), cat) <= 1
    assert gap(picture("a [cat:dog:0]"), dog) <= 1
    assert gap(picture("a [cat:dog:0.5]"), cat) > 1 < gap(picture("a [cat:dog:0.5]"), dog)
    assert gap(picture("a [cat::99]"), cat) <= 1


def test_a_negative_scale_and_and_have_a_row_for_each_text(kind: str) -> None:
    """u + l (c1 - u) + 0.5 l (c2 - u) - nl (n - u), in every family; a batch equals single pictures."""
    model = make_kind(kind).eval()
    one = dataclasses.replace(
        REQUEST, prompt="a cat AND a dog :0.5", negative="bad", scale=2.0, negative_scale=1.5
    )
    other = dataclasses.replace(one, seed=8, negative="ugly")
    both = generate(model, [one, other], device=CPU)
    for request, picture in zip((one, other), both, strict=True):
        assert gap(generate(model, [request], device=CPU)[0], picture) <= 1
    for changed in ({"negative_scale": 0.0}, {"prompt": "a cat AND a dog :0.6"}, {"negative": "good"}):
        assert gap(generate(model, [dataclasses.replace(one, **changed)], device=CPU)[0], both[0]) > 0
    plain = dataclasses.replace(one, prompt="a cat", negative="", negative_scale=3.0)
    expected = generate(model, [dataclasses.replace(plain, negative_scale=None)], device=CPU)[0]
    assert gap(generate(model, [plain], device=CPU)[0], expected) <= 1


def test_the_end_of_a_long_prompt_and_clip_skip_count(model: Model) -> None:
    long = dataclasses.replace(REQUEST, prompt="word " * 100 + "a cat")
    other = dataclasses.replace(long, prompt="word " * 100 + "a dog")
    first, second = generate(model, [long, other], device=CPU)
    assert first.tobytes() != second.tobytes()
    [skipped] = generate(model, [long], device=CPU, clip_skip=2)
    assert first.tobytes() != skipped.tobytes()


def test_drawing_stops_before_the_next_step(model: Model) -> None:
    steps = []
    stop = lambda: len(steps) == 2  # noqa: E731
    assert generate(model, [REQUEST, REQUEST], device=CPU, stop=stop, on_step=steps.append) == []
    assert steps == [2, 2]


def test_half_weights_and_autocast_draw_nearly_the_same_picture(model: Model, tiny_model_file: Path) -> None:
    [exact] = generate(model, [REQUEST], device=CPU)
    with torch.autocast("cpu", torch.bfloat16):
        [autocast] = generate(model, [REQUEST], device=CPU)
    half = load_model(tiny_model_file)
    torch.nn.ModuleList([half.denoiser, *half.text_encoders]).to(torch.bfloat16)
    [cast] = generate(half, [REQUEST], device=CPU, dtype=torch.bfloat16)
    for picture in (autocast, cast):
        difference = np.abs(np.asarray(exact, np.float32) - np.asarray(picture, np.float32)).mean()
        assert 0 < difference < 12


def test_values_that_are_no_numbers_are_told_of(model: Model, capsys: pytest.CaptureFixture) -> None:
    assert decoded(model, torch.full((1, 4, 8, 8), torch.nan), [REQUEST]) == [None]
    assert capsys.readouterr().err == (
        "warning: the picture of 'a cat on a mat', seed 3, has values that are no numbers: it is not saved\n"
    )


def test_weights_in_a_prompt_change_the_picture_and_a_weight_of_1_does_not(tiny_model_file: Path) -> None:
    model = load_model(tiny_model_file)
    for name, parameter in model.text_encoders.named_parameters():
        if name.endswith("final_layer_norm.bias"):
            # As made, its text states have a mean of 0, and then "original" has nothing to keep.
            parameter.data += 0.5

    def draw(prompt: str, negative: str = "", mode: str = "original") -> bytes:
        request = dataclasses.replace(REQUEST, prompt=prompt, negative=negative, scale=15.0)
        return generate(model, [request], device=CPU, emb_normalize=mode)[0].tobytes()

    plain = draw("a cat on a mat")
    assert draw("a (cat:1.0) on a mat") == plain
    changed = [draw("a (cat:3) on a mat", mode=mode) for mode in ("original", "abs", "none")]
    assert len({plain, *changed, draw("a cat on a mat", "(blurry:3)")}) == 5
    assert texts.TextSettings().chunks(model, ["(cat:1.5) " * 75]) == 1
