"""Regions: parts of a prompt and networks, each where a mask says."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from controls import trained_control
from kinds import make_kind
from network_contract import fill
from PIL import Image

from library.generation.command import check
from library.generation.control import ControlNets, Shown
from library.generation.generate import generate
from library.generation.network_words import NamedNetwork, read_word
from library.generation.prompt_options import generator_syntax
from library.generation.prompts import parse_prompt
from library.generation.reading import read
from library.generation.regions import RegionSettings, masks_of, with_regions
from library.generation.request import HighresFix, PromptRequest, Regions
from library.generation.strengths import NetworksInUse
from library.models.base import Model
from library.models.plain_attention import PlainAttention
from library.network.network import Network
from library.problems import UserError

CPU = torch.device("cpu")
ALONE = PromptRequest("a cat", "ugly", width=64, height=64, steps=2, scale=5, seed=3)
BOTH = replace(ALONE, prompt="a cat AND a dog")
# Every way in which a module computes: beside its layer, in its place, on its output or on its input.
KINDS = ("lora", "loha", "oft", "diag_oft", "ia3", "oft_v2", "glora", "hypernetwork")


def paint(path: Path, *columns: tuple[int, int, int]) -> Path:
    """A mask of upright stripes of these colours."""
    pixels = np.repeat(np.array([columns], np.uint8), 64, axis=0).repeat(64 // len(columns), axis=1)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def everywhere(tmp_path: Path) -> Path:
    """All of it is the first part's but a corner, which is too small to count."""
    pixels = np.zeros((512, 512, 3), np.uint8)
    pixels[..., 0], pixels[0, 0] = 255, (0, 1, 0)
    path = tmp_path / "everywhere.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def halves(tmp_path: Path) -> Path:
    return paint(tmp_path / "halves.png", (255, 0, 0), (0, 255, 0))


def pictures(model: Model, *requests: PromptRequest, networks: Sequence[Network] = ()) -> list[np.ndarray]:
    """As the generator draws them with these networks."""
    given = NetworksInUse([(network, 1.0) for network in networks])
    for network in networks:
        network.attach()
        network.eval()
    drawn = generate(model, requests, device=CPU, networks=given)
    for network in networks:
        network.detach()
    return [np.asarray(picture, int) for picture in drawn]


def gap(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one - other).max())


def network_of(model: Model, kind: str, seed: int = 1) -> Network:
    """A network of a kind as after some training."""
    parts = ("unet",) if kind in ("oft", "hypernetwork") else ("unet", "te")
    settings = {"dim": 4, "alpha": 2.0, "dropout": None, "arguments": {}, "parts": parts, "seed": seed}
    return fill(importlib.import_module(f"networks.{kind}").create(model, **settings), 0.2)


def test_channels_say_where_parts_count(tmp_path: Path) -> None:
    mask = paint(tmp_path / "mask.png", (255, 0, 0), (0, 51, 0), (0, 0, 0), (0, 0, 0))
    red, green, rest = masks_of(Regions(mask), 3)[:, 0, ::16]
    assert red.tolist() == [1, 0, 0, 0]
    assert green.tolist() == pytest.approx([0, 0.2, 0, 0])
    assert rest.tolist() == pytest.approx([0, 0.8, 1, 1])  # what the others leave
    first, second, third = masks_of(Regions(mask, networks=3), 3)[:, 0, ::16]
    assert third.tolist() == [1, 1, 1, 1]  # a network with a black channel is everywhere
    assert (first.tolist(), second[1]) == ([1, 0, 0, 0], pytest.approx(0.2))
    assert masks_of(Regions(mask, networks=1), 2)[1, 0, ::16].tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("columns", "prompt", "codes", "means"),
    [
        (((255, 0, 0), (0, 255, 0)), "a AND b", None, [0.5, 0.5]),
        (((255, 0, 0), (0, 255, 0), (255, 255, 0), (0, 0, 255)), "a AND b AND c AND d", 7, [0.25] * 4),
    ],
)
def test_masks_cover_as_much_as_in_sd_scripts(
    columns: tuple[tuple[int, int, int], ...],
    prompt: str,
    codes: int | None,
    means: list[float],
    tmp_path: Path,
) -> None:
    """With a network for each part; each then has its share of the picture and no more."""
    settings = RegionSettings(paint(tmp_path / "mask.png", *columns), codes, networks=len(means))
    (found,) = with_regions([replace(BOTH, prompt=prompt)], settings)
    assert found.regions is not None
    assert masks_of(found.regions, len(means)).mean((1, 2)).tolist() == means


def test_colours_say_where_parts_count(tmp_path: Path) -> None:
    mask = paint(tmp_path / "mask.png", (255, 0, 0), (0, 255, 0), (255, 255, 0), (254, 0, 0))
    found = masks_of(Regions(mask, codes=3, networks=3), 4)[:, 0, ::16]
    assert found.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    with pytest.raises(UserError, match=r"no pixel of the colour of part 4, \(0, 0, 255\)"):
        masks_of(Regions(mask, codes=4, networks=4), 4)
    with pytest.raises(UserError, match="is 3, but there are 4 networks"):
        masks_of(Regions(mask, codes=3, networks=4), 4)
    with pytest.raises(UserError, match="has 3 channels for 4 networks; paint a colour for each"):
        masks_of(Regions(mask, networks=4), 4)


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_a_part_that_is_everywhere_is_as_alone(kind: str, everywhere: Path) -> None:
    """Of models with pooled text their mean is told, so that it is the picture of two parts with one text."""
    model = make_kind(kind, shallow=True)
    other = "a cat" if kind == "sdxl" else "a dog"
    asked = replace(ALONE, prompt=f"a cat AND {other}", regions=Regions(everywhere))
    edited = replace(asked, prompt=f"a [cat:dog:0.5] AND {other if kind == 'sd1' else 'a [cat:dog:0.5]'}")
    found = pictures(model, asked, edited)
    plain = pictures(model, ALONE, replace(ALONE, prompt="a [cat:dog:0.5]"))
    assert max(map(gap, found, plain)) <= 1
    assert (found[0] != found[1]).any()


def test_what_was_changed_for_regions_is_as_before(halves: Path) -> None:
    model = make_kind("sd1", shallow=True)
    model.use_attention("sdpa")
    network = network_of(model, "lora")
    plain = pictures(model, ALONE)[0]
    asked = replace(BOTH, regions=Regions(halves, networks=1))
    assert gap(pictures(model, asked, networks=[network])[0], plain) > 1
    assert all(module.region is None for module in network.by_name.values())
    processors = model.parts[model.denoiser_part].attn_processors.values()
    assert {type(one) for one in processors} == {PlainAttention}
    assert not any(one._forward_pre_hooks for one in model.parts[model.denoiser_part].modules())
    assert gap(pictures(model, ALONE)[0], plain) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_is_everywhere_counts_as_without_regions(kind: str, everywhere: Path) -> None:
    """Without a negative prompt, of which it does not change the text."""
    model = make_kind("sd1", shallow=True)
    network = network_of(model, kind)
    plain = replace(ALONE, scale=1)
    regions = Regions(everywhere, networks=1)
    found = pictures(model, replace(plain, prompt=BOTH.prompt, regions=regions), networks=[network])[0]
    wanted = pictures(model, plain, networks=[network])[0]
    assert gap(found, wanted) <= 1
    assert gap(wanted, pictures(model, plain)[0]) > 1


@pytest.mark.parametrize("kind", ["lora", "oft_v2"])
def test_a_network_counts_in_its_region_alone(kind: str, everywhere: Path) -> None:
    """The second has next to nothing of the picture: without it the picture is the same."""
    model = make_kind("sd1", shallow=True)
    first, second = (network_of(model, kind, seed) for seed in (1, 2))
    regions = Regions(everywhere, networks=2)
    asked = replace(BOTH, prompt="a cat AND a cat", regions=regions)
    both = pictures(model, asked, networks=[first, second])[0]
    one = pictures(model, replace(asked, regions=replace(regions, networks=1)), networks=[first])[0]
    # Layers without places count both by halves; the rest is the first one's.
    places = [name for name in second.by_name if "time_emb" in name]
    assert not places  # as LoRAs without convolutions have no such layer, nothing of the second is left
    assert gap(both, one) <= 1


def test_halves_differ_and_batches_change_nothing(halves: Path, tmp_path: Path) -> None:
    model = make_kind("sd1", shallow=True)
    networks = [network_of(model, "lora", seed) for seed in (1, 2)]
    regions = Regions(halves, networks=2)
    asked = [replace(BOTH, seed=seed, regions=regions) for seed in (3, 4, 5)]
    together = pictures(model, *asked, networks=networks)
    backwards = pictures(model, *reversed(asked), networks=networks)
    singles = [pictures(model, one, networks=networks)[0] for one in asked]
    assert max(map(gap, together, singles)) <= 1
    assert max(map(gap, together, reversed(backwards))) <= 1
    turned = paint(tmp_path / "turned.png", (0, 255, 0), (255, 0, 0))
    other = pictures(model, replace(asked[0], regions=Regions(turned, networks=2)), networks=networks)[0]
    assert gap(other, together[0]) > 1
    plain = replace(asked[0], regions=Regions(halves))
    weighted = replace(plain, prompt="a cat :3 AND a dog :0.1")
    assert gap(*pictures(model, weighted), *pictures(model, plain)) > 1


def test_highres_fix_is_drawn_by_regions(halves: Path) -> None:
    model = make_kind("sd1", shallow=True)
    asked = replace(BOTH, width=128, height=64, regions=Regions(halves), highres=HighresFix(0.5, steps=1))
    first, second = pictures(model, asked, replace(asked, prompt="a cat", regions=None))
    assert first.shape == (64, 128, 3)
    assert gap(first, second) > 1


def test_control_nets_look_at_the_parts_too(everywhere: Path) -> None:
    model = make_kind("sd1", shallow=True)
    control = ControlNets([Shown(trained_control(model).eval())])
    hinted = replace(ALONE, hints=(everywhere,))
    asked = replace(hinted, prompt=BOTH.prompt, regions=Regions(everywhere))
    found, wanted, without = (
        np.asarray(generate(model, [request], device=CPU, control=control)[0], int)
        for request in (asked, hinted, ALONE)
    )
    assert gap(found, wanted) <= 1 < gap(wanted, without)


def test_a_prompt_with_parts_and_a_mask_has_regions(halves: Path, tmp_path: Path) -> None:
    settings = RegionSettings(halves, networks=2)
    (found,) = with_regions([BOTH], settings)
    assert (found.regions, found.mask) == (Regions(halves, None, 2), None)
    own = paint(tmp_path / "own.png", (0, 255, 0), (255, 0, 0))
    assert with_regions([replace(BOTH, mask=own)], RegionSettings())[0].regions == Regions(own)
    image = replace(BOTH, image=halves, mask=own)
    assert with_regions([image, ALONE, BOTH], RegionSettings()) == [image, ALONE, BOTH]
    with pytest.raises(UserError, match="'a cat AND a dog': has 2 parts for 3 networks; write AND between"):
        with_regions([BOTH], replace(settings, networks=3))
    one_part = "'a cat': has one part, so that the mask gives no network a region; write AND"
    with pytest.raises(UserError, match=one_part):
        with_regions([replace(BOTH, prompt="a cat"), image], settings)
    with pytest.raises(UserError, match="--network_merge: networks have no regions with it; leave it out"):
        with_regions([BOTH], replace(settings, why_not="--network_merge"))


def test_a_network_belongs_to_the_part_that_names_it() -> None:
    syntax = replace(generator_syntax(8), find_network=Path)
    request = parse_prompt("<lora:a:0.5> one AND two <lora:b> AND <lora:a> three", syntax, where="x")
    assert [(one.path.name, one.part) for one in request.networks] == [("a", 0), ("b", 1), ("a", 2)]
    assert read_word("a", Path) == NamedNetwork(Path("a"))


def lines_of(*words: object) -> list[str]:
    import gen_img

    try:
        check(read(gen_img.Run, None, [str(word) for word in words]))
    except UserError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_what_is_wrong_is_a_line(
    halves: Path, tiny_model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--ckpt", tiny_model_file, "--outdir", tmp_path / "out", "--prompt")
    codes = "--network_regional_mask_max_color_codes"
    assert lines_of(*common, "a AND b", "--mask_path", halves) == []
    assert lines_of(*common, "a AND b", "--mask_path", tmp_path / "none.png") == [
        f"{tmp_path / 'none.png'}: there is no such file; check its name and folder"
    ]
    assert lines_of(*common, "a AND b", "--mask_path", halves, codes, 8)[0].startswith(f"{codes}: must be")
    capsys.readouterr()
    assert lines_of(*common, "a", "--mask_path", halves, codes, 2) == []
    told = capsys.readouterr().err
    assert "--mask_path has no effect without --image_path, or prompts with AND between parts" in told
    assert f"{codes} has no effect without --mask_path and prompts with AND between parts" in told
