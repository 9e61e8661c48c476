"""A fourth family moves in: everything new about it is in this file, and every command takes it.

A U-Net over latents of 16 channels, 16 pixels to a latent, one text encoder, a scale and a shift for each
channel.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import make_pictures, run_here
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from library.latent_space import LatentSpace
from library.models import FAMILIES, Family, detect_family, load_model
from library.models.condition import Condition
from library.models.families import NetworkNames
from library.models.ldm.keys import Structure
from library.models.ldm.layout import Layout, PartLayout
from library.models.ldm.loading import load_layout
from library.models.ldm.model import LatentDiffusion
from library.models.noise_schedule import DDIM_CONFIG
from library.models.parts import part_of
from library.models.pruning import plan_pruning
from library.models.saving import Saving
from library.models.signs import Folder, Signs
from library.models.text import EOS, body, encode_chunks
from library.models.weights import load_tensors, read_header
from library.problems import UserError

CHANNELS, PIXELS = 16, 16
UNET, TEXT, VAE = "model.diffusion_model.", "text_of_wide.", "first_stage_model."

WIDE = Layout(
    family="wide",
    title="Wide",
    parts={
        "unet": PartLayout("unet", UNET, {"attention_head_dim": 2, "norm_num_groups": 8}, network="unet"),
        "text_encoder": PartLayout(
            "clip", TEXT, {"num_attention_heads": 2, "hidden_act": "quick_gelu"}, network="te"
        ),
        "vae": PartLayout("vae", VAE, {"norm_num_groups": 8, "scaling_factor": 0.5, "shift_factor": 0.1}),
    },
    pads=(EOS,),
    pipeline="StableDiffusionPipeline",
    pipeline_options={"feature_extractor": [None, None], "safety_checker": [None, None]},
    scheduler=("DDIMScheduler", DDIM_CONFIG),
)


class Wide(LatentDiffusion):
    """The text encoder's last layer is the condition."""

    latent_file_suffix = "_wide"

    def encode_text(self, tokens: tuple[Tensor, ...], clip_skip: int | None = None) -> Condition:
        (ids,) = tokens
        return Condition(encode_chunks(self.text_encoders[0], ids, clip_skip))

    def idle_text_modules(self, clip_skip: int | None = None) -> list[nn.Module]:
        layers = body(self.text_encoders[0]).encoder.layers
        return list(layers[len(layers) + 1 - (clip_skip or 1) :])


MODELS = {"wide": (Wide, WIDE)}
load = partial(load_layout, MODELS)


def is_folder(folder: Folder) -> bool:
    return folder.config("unet").get("in_channels") == CHANNELS


FAMILY = Family(
    title="Wide",
    module=__name__,
    signs=Signs(
        denoiser=UNET,
        texts=(TEXT,),
        vae=VAE,
        first_layer=f"{UNET}input_blocks.0.0.weight",
        parts=("unet", "text_encoder", "vae"),
        is_folder=is_folder,
    ),
    architectures=("wide", "wide-v"),
    base_versions=("wide", "wide_v"),
    network=NetworkNames(
        Structure(levels=2, layers=1, attention=(True, True)),
        is_original=False,
        texts=("te",),
        clips=("clip_l",),
        text_width=32,
    ),
    latent_space=LatentSpace(CHANNELS, pixels_per_latent=PIXELS, pixel_multiple=PIXELS),
)


@pytest.fixture(autouse=True)
def a_fourth_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "wide", FAMILY)


def make_wide() -> Wide:
    """A small one, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            block_out_channels=(32, 64),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=32,
            attention_head_dim=2,
            norm_num_groups=8,
        )
        vae = AutoencoderKL(
            block_out_channels=(16, 16, 16, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 5,
            up_block_types=("UpDecoderBlock2D",) * 5,
            layers_per_block=1,
            latent_channels=CHANNELS,
            norm_num_groups=8,
            scaling_factor=0.5,
            shift_factor=0.1,
        )
        config = CLIPTextConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            bos_token_id=EOS - 1,
            eos_token_id=EOS,
            pad_token_id=EOS,
        )
        model = Wide(unet, [CLIPTextModel(config)], vae, layout=WIDE)
    return model.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def wide_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wide") / "wide.safetensors"
    make_wide().save(path, Saving("safetensors"))
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "data" / "1_cat", 3, size=(128, 128))
    make_pictures(tmp_path / "data" / "1_cat", 2, size=(192, 96), seed=9)
    return tmp_path / "data"


def words(model: Path, pictures: Path, out: Path, *more: object) -> list[object]:
    return [
        *("--pretrained_model_name_or_path", model, "--train_data_dir", pictures, "--output_dir", out),
        *("--resolution", 128, "--enable_bucket", "--min_bucket_reso", 64, "--max_bucket_reso", 256),
        *("--bucket_reso_steps", 32, "--caption_extension", ".txt", "--train_batch_size", 2, "--seed", 3),
        *("--learning_rate", 1e-3, "--output_name", "x", "--max_train_steps", 3, "--flip_aug"),
        *("--max_data_loader_n_workers", 0, *more),
    ]


LORA = ("--network_module", "networks.lora", "--network_dim", 2, "--network_args", "conv_dim=2")


@pytest.mark.parametrize("form", ["safetensors", "ckpt", "diffusers_safetensors"])
def test_it_is_recognised_saved_and_loaded_in_every_form(tmp_path: Path, form: str) -> None:
    model, path = make_wide(), tmp_path / (f"wide.{form}" if "_" not in form else "wide")
    model.save(path, Saving(form))
    assert detect_family(path) == "wide"
    loaded = load_model(path)
    assert type(loaded) is Wide
    assert loaded.latent_space == LatentSpace(CHANNELS, PIXELS, PIXELS, scale=0.5, shift=0.1)
    for part in model.parts:
        ours, theirs = model.part_weights(part), loaded.part_weights(part)
        assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)


def test_tools_know_its_parts(wide_file: Path) -> None:
    names = set(read_header(wide_file).shapes)
    assert set(plan_pruning(str(wide_file))) == names
    assert {part_of(name) for name in names} == {"unet", "text_encoder", "vae"}


@torch.no_grad()
def test_it_encodes_predicts_and_decodes_in_its_own_latent_space() -> None:
    model = make_wide()
    pixels = torch.linspace(-1, 1, 3 * 64 * 96).view(1, 3, 64, 96)
    latents = model.encode_images(pixels, torch.zeros(1, CHANNELS, 4, 6))
    assert latents.shape == (1, *model.latent_space.shape(96, 64)) == (1, CHANNELS, 4, 6)
    condition = model.encode_text(model.tokenizer()(["a cat"]))
    assert model.predict(latents, torch.tensor([10]), condition).shape == latents.shape
    assert model.decode_latents(latents).shape == pixels.shape
    mean = model.vae.encode(pixels).latent_dist.mean
    torch.testing.assert_close(latents, (mean - 0.1) * 0.5)


def test_others_are_what_they_were(tiny_model_file: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    assert detect_family(tiny_model_file) == detect_family(tiny_model_folder) == "sd1"
    (tmp_path / "x.safetensors").write_bytes(tiny_model_file.read_bytes())
    with pytest.raises(UserError, match="is an SD 1.x model, this command is for SDXL"):
        run_here("sdxl_train_network.py", *words(tiny_model_file, tmp_path, tmp_path / "out", *LORA))


def test_a_lora_is_trained_from_caches_on_disk_with_previews(
    wide_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat --w 96 --h 128 --s 2 --d 1\n")
    caches = ("--cache_latents_to_disk", "--cache_text_encoder_outputs_to_disk", "--network_train_unet_only")
    previews = ("--sample_prompts", prompts, "--sample_every_n_steps", 3)
    for out, more in (("memory", ()), ("disk", caches), ("again", caches)):
        only = ("--network_train_unet_only",) if more is not caches else ()
        run = words(wide_file, pictures, tmp_path / out, *LORA, *previews, *only, *more)
        if out == "memory":
            run += ["--cache_latents", "--cache_text_encoder_outputs"]
        run_here("train_network.py", *run)
        if out == "again":
            assert capsys.readouterr().out.count("5 were there already, 0 made") == 2
    results = [load_tensors(tmp_path / out / "x.safetensors") for out in ("memory", "disk", "again")]
    assert any(tensor.any() for name, tensor in results[0].items() if "lora_up" in name)
    for other in results[1:]:
        assert other.keys() == results[0].keys()
        assert all(other[name].equal(results[0][name]) for name in other)
    shapes = set()
    for path in pictures.rglob("*_wide.npz"):
        with np.load(path) as arrays:
            shapes |= {arrays[name].shape for name in ("latents", "latents_flipped")}
    assert shapes == {(CHANNELS, 8, 8), (CHANNELS, 6, 10)}
    (preview,) = (tmp_path / "disk" / "sample").glob("*.png")
    assert Image.open(preview).size == (96, 128)


def test_the_model_itself_is_trained_and_saved(wide_file: Path, pictures: Path, tmp_path: Path) -> None:
    more = ("--use_safetensors", "--stop_text_encoder_training", 2, "--validation_split", 0.4)
    run_here("train_db.py", *words(wide_file, pictures, tmp_path / "out", *more))
    before, after = load_tensors(wide_file), load_tensors(tmp_path / "out" / "x.safetensors")
    moved = {name.split(".")[0] for name in before if not before[name].equal(after[name])}
    assert before.keys() == after.keys() and moved == {"model", "text_of_wide"}
    assert type(load_model(tmp_path / "out" / "x.safetensors")) is Wide


def test_the_generator_draws_with_it_and_its_lora(wide_file: Path, pictures: Path, tmp_path: Path) -> None:
    run_here("train_network.py", *words(wide_file, pictures, tmp_path, *LORA))
    drawn = []
    for out, more in (("plain", ()), ("lora", ("--network_weights", tmp_path / "x.safetensors"))):
        network = ("--network_module", "networks.lora", *more) if more else ()
        words_of = ("--ckpt", wide_file, "--outdir", tmp_path / out, "--prompt", "a (cat:1.3)", "--W", 96)
        sizes = ("--H", 112, "--steps", 2, "--seed", 1, "--images_per_prompt", 1)
        run_here("gen_img_diffusers.py", *words_of, *sizes, *network)
        (picture,) = (tmp_path / out).glob("*.png")
        drawn.append(Image.open(picture))
    assert [picture.size for picture in drawn] == [(96, 112)] * 2
    assert drawn[0].tobytes() != drawn[1].tobytes()
