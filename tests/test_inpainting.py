"""Inpainting models in every trainer: masks by key, caches, resume, processes, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from commands import launch, make_pictures, run_here
from kinds import make_kind
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from trainers import of_trainer, options, two_buckets, weights

from library.models import load_model
from library.models.saving import Saving
from library.problems import UserError

# Every trainer with a family that it is for.
TRAINERS = {
    "train_db.py": "sd1",
    "sdxl_train_network.py": "sdxl",
    "train_textual_inversion.py": "sd2",
    "fine_tune.py": "sd2",
    "train_network.py": "sd1",
    "sdxl_train.py": "sdxl",
    "sdxl_train_textual_inversion.py": "sdxl",
}
ALWAYS = 3  # of them; the others are in the long part
CASES = [
    script if number < ALWAYS else pytest.param(script, marks=pytest.mark.long)
    for number, script in enumerate(TRAINERS)
]


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """kind -> the file of a tiny inpainting model."""
    root = tmp_path_factory.mktemp("inpainting")

    @cache
    def save(kind: str) -> Path:
        model = make_kind(kind)
        model.make_inpainting()
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            model.denoiser.conv_in.weight[:, 4:].normal_(0, 0.1, generator=generator)
        model.save(root / f"{kind}.safetensors", Saving("safetensors"))
        return root / f"{kind}.safetensors"

    return save


@pytest.mark.parametrize("script", CASES)
def test_every_trainer_goes_on_exactly_with_masks_drawn_by_key(
    script: str, inpainting: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """In the middle of an epoch, with loader processes and validation; --train_inpainting changes nothing."""
    model, data = inpainting(TRAINERS[script]), two_buckets(tmp_path / "data")
    common = (*of_trainer(script), "--save_state", "--validation_split", 0.3)

    def train(out: str, *more: object) -> Path:
        run_here(script, *options(model, data, tmp_path / out, *common, "--max_train_steps", 3, *more))
        return tmp_path / out

    whole = train("whole", "--save_every_n_steps", 1)
    assert "is an inpainting model and is trained as one" in capsys.readouterr().out
    seen = {weights(whole / f"x-step{step:08d}.safetensors") for step in (1, 2, 3)}
    assert len(seen) == 3
    state = ("--resume", whole / "x-step00000001-state")
    part = train("part", *state, "--max_data_loader_n_workers", 2, "--train_inpainting")
    assert weights(part / "x.safetensors") == weights(whole / "x-step00000003.safetensors")


def test_a_text_to_image_model_becomes_an_inpainting_model(
    shallow_kind: Callable[[str, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model, data = shallow_kind("sd1", "safetensors"), two_buckets(tmp_path / "data")
    words = (
        "--train_inpainting",
        "--use_safetensors",
        "--max_train_steps",
        2,
        "--use_ema",
        "--cache_latents",
    )
    run_here("train_db.py", *options(model, data, tmp_path / "out", *words, "--save_state"))
    assert "becomes an inpainting model: its first layer gets weights of 0" in capsys.readouterr().out
    found = load_model(tmp_path / "out" / "x.safetensors")
    assert found.is_inpainting and (found.denoiser.conv_in.weight[:, 4:] != 0).any()
    with safe_open(tmp_path / "out" / "x.safetensors", "pt") as file:
        assert file.metadata()["modelspec.architecture"] == "stable-diffusion-v1/inpaint"
    resume = (
        "--use_safetensors",
        "--resume",
        tmp_path / "out" / "x-state",
        "--max_train_steps",
        3,
        "--use_ema",
    )
    with pytest.raises(UserError, match="--train_inpainting: is off, but was on when the state was saved"):
        run_here("train_db.py", *options(model, data, tmp_path / "again", *resume))
    run_here(
        "train_network.py",
        *options(
            model, data, tmp_path / "net", *of_trainer("train_network.py"), *words[:1], "--max_train_steps", 1
        ),
    )
    assert "leaves its first layer as it is: masks have no effect" in capsys.readouterr().err


def test_cached_latents_teach_the_same_and_a_dry_run_writes_nothing(
    inpainting: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The picture's latents are cached; those of the masked picture are made for each mask."""
    model, data = inpainting("sd1"), two_buckets(tmp_path / "data")
    more = ("--network_module", "networks.lora", "--network_dim", 4, "--max_train_steps", 2)

    def train(out: str, *besides: object) -> bytes:
        run_here("train_network.py", *options(model, data, tmp_path / out, *more, *besides))
        return weights(tmp_path / out / "x.safetensors")

    memory, disk = train("memory", "--cache_latents"), train("disk", "--cache_latents_to_disk")
    assert memory == disk != train("other masks", "--cache_latents", "--seed", 4)
    with pytest.raises(SystemExit) as end:
        train("dry", "--dry_run", "--cache_latents")
    assert end.value.code == 0 and not (tmp_path / "dry").exists()
    assert "dry run: no problems found" in capsys.readouterr().out


def test_masks_of_a_folder_and_of_alpha_channels_are_learned_with(
    inpainting: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture, shallow_kind: Callable
) -> None:
    data = tmp_path / "data"
    make_pictures(data / "1_a", 2)
    for path in (data / "1_a").glob("*.png"):
        picture, mask = Image.open(path).convert("RGBA"), Image.new("L", (64, 64))
        mask.paste(255, (0, 0, 32, 64))
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask.save(tmp_path / "masks" / path.name)
        picture.putalpha(Image.eval(mask, lambda level: 255 - level))
        picture.save(path)
    network = (*of_trainer("train_network.py"), "--max_train_steps", 2)

    def train(out: str, *more: object, model: Path | None = None) -> bytes:
        words = options(model or inpainting("sd1"), data, tmp_path / out, *network, *more)
        run_here("train_network.py", *words)
        return weights(tmp_path / out / "x.safetensors")

    alpha, drawn = train("alpha", "--inpainting_masks", "alpha"), train("drawn")
    photo = next((data / "1_a").glob("*.png"))
    Image.open(photo).convert("RGB").save(tmp_path / "photo.png")
    prompt = (
        f"a cat --i {tmp_path / 'photo.png'} --mask {tmp_path / 'masks' / photo.name} --w 64 --h 64 --s 1"
    )
    (tmp_path / "prompts.txt").write_text(f"{prompt} --d 1\n")
    looks = ("--sample_prompts", tmp_path / "prompts.txt", "--sample_at_first")
    named = train("named", "--inpainting_masks", tmp_path / "masks", *looks)
    preview = Image.open(next((tmp_path / "named" / "sample").iterdir()))
    kept, white = (32, 0, 64, 64), (0, 0, 32, 64)
    original = Image.open(tmp_path / "photo.png")
    assert preview.crop(kept).tobytes() == original.crop(kept).tobytes()
    assert preview.crop(white).tobytes() != original.crop(white).tobytes()
    assert len({alpha, drawn, named}) == 3  # alpha shows the colours that named and drawn put on white
    capsys.readouterr()
    train("plain", "--inpainting_masks", "alpha", *looks, model=shallow_kind("sd1", "safetensors"))
    told = capsys.readouterr().err
    assert "inpainting_masks has no effect without --train_inpainting" in told
    preview = Image.open(next((tmp_path / "plain" / "sample").iterdir()))
    assert preview.crop(kept).tobytes() == original.crop(kept).tobytes()
    assert preview.crop(white).tobytes() != original.crop(white).tobytes()


@pytest.mark.long
def test_two_processes_learn_what_one_with_twice_the_batch_learns(
    inpainting: Callable[[str], Path], tmp_path: Path
) -> None:
    model, data = inpainting("sd1"), two_buckets(tmp_path / "data")
    plain = ("--optimizer_type", "SGDNesterov", "--max_grad_norm", 0, "--learning_rate", 0.1)
    network = ("--network_module", "networks.lora", "--network_dim", 4, *plain, "--max_train_steps", 4)

    def words(processes: int) -> list[object]:
        batch = ("--train_batch_size", 2 // processes)
        return ["train_network.py", *options(model, data, tmp_path / str(processes), *network, *batch)]

    run_here(*words(1))
    launch(*words(2), processes=2)
    one, two = (load_file(tmp_path / str(count) / "x.safetensors") for count in (1, 2))
    assert max((one[key] - two[key]).abs().max().item() for key in one) < 2e-5
    assert max(one[key].abs().max().item() for key in one if "up" in key) > 1e-3
