"""Deep Shrink and Gradual Latent: their schedules, what they draw, and that they belong to their prompt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from controls import trained_control
from kinds import make_kind
from PIL import Image

from library.generation.generate import generate
from library.generation.gradual import _sharpened
from library.generation.large_checks import GROWING, check_large
from library.generation.large_pictures import DeepShrink, GradualLatent, Unsharp
from library.generation.prompt_options import generator_syntax
from library.generation.prompts import parse_prompt
from library.generation.request import PromptRequest
from library.generation.samplers import SAMPLERS, Sampler
from library.models import FAMILIES
from library.models.base import Condition
from library.models.condition import Shrink
from library.models.ldm.model import LatentDiffusion
from library.problems import UserError

GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "drawing.json").read_text())
SHORT = "the original ends with a picture smaller than asked for; here the last growth goes all the way"


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return make_kind("sd1").eval()


@pytest.mark.parametrize("row", GOLDEN["deep_shrink"], ids=str)
def test_deep_shrink_acts_at_the_golden_steps(row: dict) -> None:
    names = ("depth_1", "timesteps_1", "depth_2", "timesteps_2")
    shrink = DeepShrink(**{name: row[name] for name in names})
    times = Sampler("euler", "epsilon", row["steps"]).timesteps.tolist()
    found = [[step, shrink.depth_at(t)] for step, t in enumerate(times)]
    assert [[step, [depth]] for step, depth in found if depth is not None] == [
        [step, depths] for step, _, depths in row["active_steps"]
    ]


@pytest.mark.parametrize("row", GOLDEN["gradual_latent"], ids=str)
def test_gradual_latent_grows_at_the_golden_steps(row: dict) -> None:
    gradual = GradualLatent(row["start_timesteps"], row["ratio"], row["ratio_step"], row["every"])
    width, height = (side // 8 for side in row["size"])
    full, times = (height, width), Sampler("euler_a", "epsilon", row["steps"]).timesteps.tolist()
    golden = {step: (size[1], size[0]) for step, _, _, size in row["resized_in_step"]}
    first, found = gradual.first(full, len(times)), gradual.growths(full, times)
    assert list(reversed(first)) == row["first_latents"]
    if row["note"] is None:
        assert found == golden
    else:  # see SHORT
        assert {step: size for step, size in found.items() if size != full} == {
            step: size for step, size in golden.items() if step < max(found) and size != (120, 120)
        }
    assert found[max(found)] == full and max(found) <= len(times) - 2


@pytest.mark.parametrize("sampler", GROWING)
def test_few_steps_end_in_the_full_size_too(sampler: str, model: LatentDiffusion) -> None:
    """Of any shape; unless there is a single one, the first is small."""
    for steps, width in ((1, 72), (2, 64), (5, 72)):
        asked = PromptRequest("a", width=width, height=80, steps=steps, seed=1, scale=1, sampler=sampler)
        (picture,) = draw(model, replace(asked, gradual=GradualLatent(every_n_steps=1)))
        assert picture.shape == (80, width, 3)
        assert (steps == 1) == np.array_equal(picture, draw(model, asked)[0])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_every_depth_gives_a_prediction_of_full_size_and_leaves_no_trace(kind: str) -> None:
    model = make_kind(kind).eval()
    count = 4 if kind == "sd1" else 9
    hidden = torch.zeros(1, 77, model.denoiser.config.cross_attention_dim)
    pooled = torch.zeros(1, 1280) if kind == "sdxl" else None
    sizes = torch.tensor([[72, 136, 0, 0, 72, 136]])
    condition = Condition(hidden, pooled=pooled, sizes=sizes)
    if kind == "sdxl":
        condition = replace(condition, pooled=torch.zeros(1, model.text_encoders[1].config.projection_dim))
    x, t = torch.randn(1, 4, 9, 17, generator=torch.Generator().manual_seed(0)), torch.tensor([700])
    plain = model.predict(x, t, condition)
    whole = model.predict(x, t, replace(condition, shrink=Shrink(count - 1, 1.0)))
    torch.testing.assert_close(whole, plain, rtol=1e-4, atol=1e-5)
    found = [model.predict(x, t, replace(condition, shrink=Shrink(depth, 0.5))) for depth in range(count)]
    assert all(one.shape == x.shape and torch.isfinite(one).all() for one in found)
    assert all((one - plain).abs().max() > 1e-3 for one in found)
    assert torch.equal(model.predict(x, t, condition), plain)
    with pytest.raises(IndexError):
        model.predict(x, t, replace(condition, shrink=Shrink(count, 0.5)))


def draw(model: LatentDiffusion, *requests: PromptRequest, **more: object) -> list[np.ndarray]:
    pictures = generate(model, list(requests), device=torch.device("cpu"), **more)
    return [np.asarray(one).astype(int) for one in pictures]


def test_they_belong_to_their_prompt_alone_and_a_batch_is_what_single_pictures_are(
    model: LatentDiffusion,
) -> None:
    plain = PromptRequest("a", width=64, height=64, steps=4, seed=1, sampler="euler_a")
    shrinks = replace(plain, deep_shrink=DeepShrink())
    grows = [replace(plain, seed=seed, gradual=GradualLatent(every_n_steps=1)) for seed in (1, 2)]
    sharp = replace(grows[0], gradual=GradualLatent(unsharp=Unsharp(3, 1.0, 1.0, False)))
    asked = [plain, shrinks, *grows, sharp, replace(plain, seed=2)]
    together = draw(model, *asked)
    alone = [draw(model, one)[0] for one in asked]
    assert max(np.abs(a - b).max() for a, b in zip(together, alone, strict=True)) <= 1
    assert len({picture.tobytes() for picture in together}) == len(asked)


def test_control_nets_draw_with_both(model: LatentDiffusion, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (200, 10, 10)).save(tmp_path / "hint.png")
    control = trained_control(model)
    plain = PromptRequest("a", width=64, height=64, steps=3, seed=1, sampler="euler_a")
    for asked in (replace(plain, deep_shrink=DeepShrink(2)), replace(plain, gradual=GradualLatent())):
        bare, shown = asked, asked.with_hints((tmp_path / "hint.png",))
        assert (draw(model, bare)[0] != draw(model, shown, control=control)[0]).any()


def test_an_unsharp_mask_is_the_picture_and_what_blurring_takes_away() -> None:
    x = torch.randn(2, 4, 9, 8, generator=torch.Generator().manual_seed(0))
    places = torch.tensor([-1.0, 0.0, 1.0])
    weights = torch.exp(-(places**2) / (2 * 0.7**2))
    kernel = torch.outer(weights, weights) / weights.sum() ** 2
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    blurred = F.conv2d(padded, kernel.expand(4, 1, 3, 3), groups=4)
    torch.testing.assert_close(_sharpened(x, Unsharp(3, 0.7, 0.5)), x + (x - blurred) * 0.5)


def test_prompts_say_them_as_in_sd_scripts() -> None:
    def read(line: str) -> PromptRequest:
        return parse_prompt(f"a {line}", generator_syntax(8), where="here")

    assert read("--dst1 500").deep_shrink == DeepShrink(3, 500, None, 650, 0.5)
    assert read("--dsd1 2 --dst1 800 --dsd2 4 --dst2 600 --dsr 0.4").deep_shrink == DeepShrink(
        2, 800, 4, 600, 0.4
    )
    assert read("--glt 700").gradual == GradualLatent(700)
    assert read("--glt 700 --glus 3,1.0,1.0,0").gradual == GradualLatent(
        700, unsharp=Unsharp(3, 1.0, 1.0, False)
    )
    both = read("--glr 0.6 --gle 2 --gls 0.2 --glsn 0.9 --glus 3,0.5,0.5")
    assert both.gradual == GradualLatent(650, 0.6, 0.2, 2, 0.9, Unsharp(3, 0.5, 0.5, True))
    assert both.deep_shrink is None and read("").gradual is None
    with pytest.raises(UserError) as caught:
        read("--dsd1 3.5 --dsr 2 --gle 0 --glus 4,1,1 --glsn -1")
    assert len(caught.value.problems) == 5


def test_what_cannot_be_drawn_so_is_refused_by_name() -> None:
    def said(family: str, **settings: object) -> str:
        request = replace(PromptRequest("a"), **settings)
        has = {"has_lllites": False, "is_inpainting": False}
        with pytest.raises(UserError) as caught:
            check_large([request], FAMILIES[family].network, **has)
        return str(caught.value.problems[0])

    assert "the model has no block 4; take 0 to 3" in said("sd1", deep_shrink=DeepShrink(4))
    assert "the model has no block 9; take 0 to 8" in said("sdxl", deep_shrink=DeepShrink(3, depth_2=9))
    for sampler in SAMPLERS:
        if sampler.removeprefix("k_") not in GROWING:
            assert f"{sampler} keeps earlier" in said("sd1", gradual=GradualLatent(), sampler=sampler)
    assert "not with a picture" in said("sd1", gradual=GradualLatent(), sampler="euler_a", image=Path("x"))
