"""The generator with ControlNets: which, how strongly, how long, and what they are shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run_here
from controls import trained_control
from kinds import make_kind
from PIL import Image
from torch import Tensor

from library.generation.control import ControlNets, Shown
from library.models.condition import Condition, Residuals
from library.models.saving import Saving
from library.options.generation import GeneratorControlOptions
from library.problems import UserError


class Recorder:
    """A Control that adds its number, and remembers the hints it was shown."""

    def __init__(self, number: float) -> None:
        self.number, self.hints = number, list[Tensor]()

    def __call__(self, x: Tensor, t: Tensor, condition: Condition) -> Residuals:
        assert condition.hint is not None
        self.hints.append(condition.hint)
        return Residuals((torch.full((1,), self.number),), torch.full((2,), self.number))


def test_what_they_add_is_summed_each_with_its_strength_as_long_as_its_ratio_lasts() -> None:
    one, two = Recorder(1.0), Recorder(10.0)
    together = ControlNets([Shown(one, 0.5, 0.5), Shown(two, 2.0, 0.75, lambda hint: 1 - hint)])
    hint = torch.cat([torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.25)], dim=1)
    x, t = torch.zeros(1, 4, 1, 1), torch.tensor([9])

    def added(progress: float) -> list[float] | None:
        found = together(x, t, Condition(x, hint=hint, progress=progress))
        return None if found is None else [found.down[0].item(), *found.mid.tolist()]

    assert [added(share) for share in (0.0, 0.49)] == [[20.5] * 3] * 2
    assert added(0.5) == [20.0] * 3
    assert added(0.75) is None
    assert (one.hints[0] == 0).all() and (two.hints[0] == 0.75).all()
    assert all(shown is two.hints[0] for shown in two.hints)  # made once


def test_options_have_values_for_each_and_defaults_for_the_rest(capsys: pytest.CaptureFixture) -> None:
    two = (Path("a"), Path("b"))
    options = GeneratorControlOptions(
        control_net_models=two,
        control_net_multipliers=(0.5,),
        control_net_ratios=(0.25,),
        control_net_preps=("canny_10",),
    )
    assert [options.multiplier_of(n) for n in range(2)] == [0.5, 1.0]
    assert [options.ratio_of(n) for n in range(2)] == [0.25, 1.0]
    assert [options.edges_of(n) for n in range(2)] == [(10, 191), None]
    preps = GeneratorControlOptions(control_net_models=two, control_net_preps=("none", "canny"))
    assert [preps.edges_of(n) for n in range(3)] == [None, (63, 191), None]
    with pytest.raises(UserError) as caught:
        GeneratorControlOptions(
            control_net_models=two,
            control_net_multipliers=(1, 2, 3),
            control_net_ratios=(-1,),
            control_net_preps=("depth",),
        )
    assert list(map(str, caught.value.problems)) == [
        "--control_net_multipliers: has more values than there are networks of control",
        "--control_net_ratios: must be 0 or more",
        "--control_net_preps: expects none, canny or canny_low_high, got 'depth'; "
        "make other hints beforehand",
    ]
    GeneratorControlOptions(control_net_ratios=(0.5,))
    assert "--control_net_ratios has no effect" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_pictures_are_drawn_after_hints(
    kind: str, saved_kind: Callable[[str, str], Path], tmp_path: Path
) -> None:
    model = saved_kind(kind, "safetensors")
    script = "sdxl_gen_img.py" if kind == "sdxl" else "gen_img_diffusers.py"
    net = tmp_path / "net.safetensors"
    trained_control(make_kind(kind)).save(net, Saving("safetensors", dtype=torch.float16))
    (tmp_path / "hints").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)).save(tmp_path / "hints" / name)
    (tmp_path / "two.txt").write_text("one --d 5\none --d 5\n")

    def draw(*more: object) -> list[bytes]:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        words = ("--from_file", tmp_path / "two.txt", "--W", 64, "--H", 64, "--steps", 2, "--outdir", out)
        run_here(script, "--ckpt", model, *words, *more)
        return [Image.open(path).tobytes() for path in sorted(out.glob("*.png"))]

    def shown(*more: object) -> list[bytes]:
        return draw("--control_net_models", net, "--guide_image_path", tmp_path / "hints", *more)

    plain, first = draw(), shown()
    assert plain[0] == plain[1] and len({*plain, *first}) == 3
    assert shown("--control_net_multipliers", 0) == plain == shown("--control_net_ratios", 0)
    edges = shown("--control_net_preps", "canny")
    assert not {*edges} & {*plain, *first}
    assert len({*shown("--control_net_ratios", 0.5), *first, *plain}) == 5


def test_what_is_wrong_is_told_before_the_model_is_read(tiny_model_file: Path, tmp_path: Path) -> None:
    net, hint = tmp_path / "net.safetensors", tmp_path / "hint.png"
    trained_control(make_kind("sdxl")).save(net, Saving("safetensors"))
    Image.new("RGB", (64, 64)).save(hint)

    def problem(*more: object) -> str:
        words = ("--ckpt", tiny_model_file, "--prompt", "one", "--outdir", tmp_path / "out")
        with pytest.raises(UserError) as caught:
            run_here("gen_img_diffusers.py", *words, *more)
        (found,) = caught.value.problems
        return str(found)

    asked = ("--control_net_models", net)
    assert problem(*asked) == (
        "--control_net_models: no prompt has a picture to show; give --guide_image_path, or --cn in prompts"
    )
    shown = ("--guide_image_path", hint)
    assert "is for texts of 80 numbers; this SD 1.x model has" in problem(*asked, *shown)
    assert "is a checkpoint, not a ControlNet" in problem("--control_net_models", tiny_model_file, *shown)
    assert "there is no such file" in problem(*asked, "--guide_image_path", tmp_path / "no.png")
