"""Seeds, names and files of a run's pictures."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from library.generation.pictures import picture_name, plan_pictures, save_picture
from library.generation.request import PromptRequest


def test_a_single_picture_uses_the_seed_of_the_run_as_it_is() -> None:
    assert plan_pictures([PromptRequest("a")], seed=7) == [PromptRequest("a", seed=7)]


def test_the_seeds_of_a_prompt_win_and_go_to_its_first_pictures() -> None:
    prompt = PromptRequest("a", seed=5, more_seeds=(6, 7))
    planned = plan_pictures([prompt], seed=1, n_iter=2, images_per_prompt=2)
    assert [request.seed for request in planned[:3]] == [5, 6, 7]
    assert planned[3].seed not in (5, 6, 7)
    assert all(request.more_seeds == () for request in planned)


def test_every_picture_has_its_own_seed_whatever_follows_it() -> None:
    prompts = [PromptRequest("a"), PromptRequest("b"), PromptRequest("c")]
    few = plan_pictures(prompts[:2], seed=1, images_per_prompt=2)
    many = plan_pictures(prompts, seed=1, n_iter=3, images_per_prompt=2)
    assert [request.prompt for request in many] == ["a", "a", "b", "b", "c", "c"] * 3
    assert many[:4] == few
    assert len({request.seed for request in many}) == 18
    assert all(0 <= request.seed < 2**31 for request in many)
    assert plan_pictures(prompts, seed=2)[0].seed != many[0].seed


def test_file_names_are_those_of_sd_scripts() -> None:
    assert picture_name("20240131235959", 4, 42) == "im_20240131235959_004_42.png"


def test_a_picture_carries_its_settings(tmp_path: Path) -> None:
    request = PromptRequest("ein Mädchen 少女", "ugly", steps=3, scale=1.5, seed=8, sampler="euler")
    save_picture(tmp_path / "new" / "x.png", Image.new("RGB", (8, 8), (1, 2, 3)), request)
    with Image.open(tmp_path / "new" / "x.png") as picture:
        assert picture.getpixel((0, 0)) == (1, 2, 3)
        assert picture.text == {
            "prompt": "ein Mädchen 少女",
            "seed": "8",
            "sampler": "euler",
            "steps": "3",
            "scale": "1.5",
            "negative-prompt": "ugly",
        }
