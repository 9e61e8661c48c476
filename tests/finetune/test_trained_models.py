"""A small tagger and a small captioner that are trained on the demo's world, through the commands, judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import small_captioners
import torch
import torch.nn.functional as F
from commands import call
from make_world import Scene, choose_scene, draw
from PIL import Image
from shapes import COLOURS, SHAPES
from torch import Tensor, nn

from finetune import make_captions_by_git, tag_images_by_wd14_tagger
from library.randomness import keyed_random

pytestmark = pytest.mark.long
RATINGS = ("general", "sensitive", "questionable", "explicit")
GROUNDS = [f"{colour}_background" for colour in COLOURS]
COUNT, ASKED, SMALL = 2000, 120, 56


def scenes(name: str, count: int) -> list[Scene]:
    """Single things on plain backgrounds."""
    found: list[Scene] = []
    rng = keyed_random(5, name)
    while len(found) < count:
        scene = choose_scene(rng)
        if len(scene.things) == 1 and not scene.pattern:
            found.append(scene)
    return found


def pictures(name: str, asked: list[Scene]) -> list[Image.Image]:
    return [draw(scene, keyed_random(5, name, number)) for number, scene in enumerate(asked)]


class Tagger(nn.Module):
    """Pictures (n, 448, 448, 3), BGR, 0..255 -> the probabilities of four ratings and of the backgrounds."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()),
            *(nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 49, len(GROUNDS))),
        )

    def forward(self, x: Tensor) -> Tensor:
        small = F.avg_pool2d(x.permute(0, 3, 1, 2), 448 // SMALL)
        found = self.body(small / 127.5 - 1).sigmoid()
        return torch.cat([torch.zeros_like(found[:, : len(RATINGS)]), found], 1)


def padded(picture: Image.Image) -> np.ndarray:
    """(56, 56, 3) BGR, on a white square."""
    side = max(picture.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return np.asarray(square.resize((SMALL, SMALL), Image.Resampling.BOX))[..., ::-1]


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder, with WD14's files."""
    torch.manual_seed(1)
    folder, told = tmp_path_factory.mktemp("tagger"), scenes("taught", COUNT)
    x = torch.from_numpy(np.stack([padded(one) for one in pictures("taught", told)]).copy())
    x = x.permute(0, 3, 1, 2).float() / 127.5 - 1
    wanted = torch.tensor([list(COLOURS).index(scene.background) for scene in told])
    model = Tagger()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for step in range(600):
        rows = torch.randint(0, COUNT, (64,), generator=torch.Generator().manual_seed(step))
        target = F.one_hot(wanted[rows], len(GROUNDS)).float()
        loss = F.binary_cross_entropy_with_logits(model.body(x[rows]), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    names = {"input_names": ["input"], "output_names": ["output"]}
    axes = {"input": {0: "batch"}, "output": {0: "batch"}}
    shown = torch.zeros(1, 448, 448, 3)
    torch.onnx.export(model.eval(), (shown,), folder / "model.onnx", dynamic_axes=axes, dynamo=False, **names)
    rows = [(name, 9) for name in RATINGS] + [(name, 0) for name in GROUNDS]
    lines = [f"{number},{name},{category},1" for number, (name, category) in enumerate(rows)]
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *lines]))
    return folder


def share_tagged(folder: Path, tagger: Path, asked: list[Scene], *more: object) -> float:
    """How many pictures' texts are their background alone."""
    folder.mkdir()
    for number, picture in enumerate(pictures("asked", asked)):
        picture.save(folder / f"{number}.png")
    words = (folder, "--repo_id", tagger, "--thresh", 0.5, "--batch_size", 8, *more)
    call(tag_images_by_wd14_tagger.main, "tag_images_by_wd14_tagger.py", *words)
    right = 0
    for number, scene in enumerate(asked):
        right += (folder / f"{number}.txt").read_text().strip() == f"{scene.background}_background"
    return right / len(asked)


def test_a_trained_tagger_names_the_background(
    tagger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = scenes("asked", ASKED)
    wide = [scene for scene in scenes("wide", 400) if scene.size[0] != scene.size[1]][:ASKED]
    right = share_tagged(tmp_path / "right", tagger, asked)
    right_wide = share_tagged(tmp_path / "wide", tagger, wide)
    swapped = share_tagged(tmp_path / "swapped", tagger, asked, "--colour_order", "rgb")
    new = Image.new
    black = lambda mode, size, colour=0: new(mode, size, "black" if colour == "white" else colour)  # noqa: E731
    monkeypatch.setattr(Image, "new", black)
    dark = share_tagged(tmp_path / "dark", tagger, wide)
    print(f"\nright {right:.1%}, wide {right_wide:.1%}, swapped {swapped:.1%}, on black {dark:.1%}")
    assert min(right, right_wide) >= 0.95
    assert max(swapped, dark) < 0.5


def text_of(scene: Scene) -> str:
    ((colour, shape),) = scene.things
    return f"a {colour} {shape} on {scene.background} ground"


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small GIT."""
    words = ("a", "on", "ground", *COLOURS, *SHAPES)
    folder = tmp_path_factory.mktemp("captioner")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_captioners, "WORDS", words)
        torch.manual_seed(1)
        model, processor = small_captioners._git(folder)
    told = scenes("taught", COUNT)
    shown = processor(images=pictures("taught", told), return_tensors="pt")["pixel_values"]
    texts = processor.tokenizer([text_of(scene) for scene in told], padding=True, return_tensors="pt")
    labels = texts["input_ids"].masked_fill(texts["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, 1500)
    model.train()
    for step in range(1500):
        rows = torch.randint(0, COUNT, (32,), generator=torch.Generator().manual_seed(step))
        batch = {name: tensor[rows] for name, tensor in texts.items() if name != "token_type_ids"}
        loss = model(pixel_values=shown[rows], labels=labels[rows], **batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_a_trained_captioner_names_the_colours(captioner: Path, tmp_path: Path) -> None:
    asked = scenes("asked", ASKED)
    for number, picture in enumerate(pictures("asked", asked)):
        picture.save(tmp_path / f"{number}.png")
    words = (tmp_path, "--model_id", captioner, "--batch_size", 8, "--caption_extension", ".txt")
    call(make_captions_by_git.main, "make_captions_by_git.py", *words)
    right = 0
    for number, scene in enumerate(asked):
        told = [word for word in (tmp_path / f"{number}.txt").read_text().split() if word in COLOURS]
        right += told == [scene.things[0][0], scene.background]
    print(f"\nboth colours right in {right / ASKED:.1%} of {ASKED}")
    assert right / ASKED >= 0.9
