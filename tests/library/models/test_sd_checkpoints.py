"""Checkpoints of every kind -> model -> checkpoints of every kind, tensor by tensor."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from library.models import load_model
from library.models.base import Model
from library.models.sd.model import StableDiffusion
from library.models.weights import load_tensors, open_tensors, save_tensors
from library.problems import UserError

PARTS = ("unet", "text_encoder", "vae")
UNET, TEXT, VAE = "model.diffusion_model.", "cond_stage_model.transformer.", "first_stage_model."
FORMATS = {"ckpt": ".ckpt", "safetensors": ".safetensors", "diffusers": "", "diffusers_safetensors": ""}


def weights(model: Model) -> dict[str, Tensor]:
    return {name: tensor for part in PARTS for name, tensor in model.part_weights(part).items()}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
        for name, tensor in expected.items()
    )


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each part in a precision of its own."""
    dtypes = {UNET: torch.float16, TEXT: torch.bfloat16, VAE: torch.float32}
    return {
        name: tensor.to(next(dtype for prefix, dtype in dtypes.items() if name.startswith(prefix)))
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_file_through_the_model_stays_the_same(tiny_model_file: Path, tmp_path: Path, suffix: str) -> None:
    tensors = halved(load_tensors(tiny_model_file))
    metadata = open_tensors(tiny_model_file).metadata
    save_tensors(tmp_path / f"a{suffix}", tensors, metadata, metadata)
    model = load_model(tmp_path / f"a{suffix}", dtype="stored")
    model.save(tmp_path / f"b{suffix}", suffix[1:])
    assert same(load_tensors(tmp_path / f"b{suffix}"), tensors)
    assert open_tensors(tmp_path / f"b{suffix}").metadata["atelier.config"] == metadata["atelier.config"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_model_saved_in_any_format_loads_as_the_same_model(
    tiny_model: Model, tmp_path: Path, format: str
) -> None:
    tiny_model.prediction_type = "v"
    path = tmp_path / f"model{FORMATS[format]}"
    tiny_model.save(path, format)
    loaded = load_model(path)
    assert same(weights(loaded), weights(tiny_model))
    assert loaded.prediction_type == "v"
    configs = [
        {key: value for key, value in model.denoiser.config.items() if key[0] != "_"}
        | {"text": model.text_encoders[0].config.to_dict(), "groups": model.vae.config.norm_num_groups}
        for model in (loaded, tiny_model)
    ]
    assert json.loads(json.dumps(configs[0])) == json.loads(json.dumps(configs[1]))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_a_file_and_a_folder_of_a_model_compute_the_same(
    tiny_model_file: Path, tiny_model_folder: Path
) -> None:
    outputs = []
    for path in (tiny_model_file, tiny_model_folder):
        model = load_model(path)
        with torch.no_grad():
            condition = model.encode_text(model.tokenizer()(["a cat"]))
            x = torch.linspace(-1, 1, 4 * 64).view(1, 4, 8, 8)
            outputs.append((model.predict(x, torch.tensor([500]), condition), model.decode_latents(x)))
    assert all(torch.equal(one, other) for one, other in zip(*outputs, strict=True))


@pytest.mark.parametrize("format", FORMATS)
def test_diffusers_loads_every_format_with_equal_tensors(
    tiny_model: Model, tiny_model_folder: Path, tmp_path: Path, format: str
) -> None:
    from diffusers import StableDiffusionPipeline

    path = tmp_path / f"model{FORMATS[format]}"
    tiny_model.save(path, format)
    if FORMATS[format]:
        pipeline = StableDiffusionPipeline.from_single_file(
            path, config=str(tiny_model_folder), local_files_only=True, safety_checker=None
        )
    else:
        pipeline = StableDiffusionPipeline.from_pretrained(path, safety_checker=None, local_files_only=True)
    for theirs, ours in (
        (pipeline.unet, tiny_model.denoiser),
        (pipeline.vae, tiny_model.vae),
        (pipeline.text_encoder, tiny_model.text_encoders[0]),
    ):
        assert same(theirs.state_dict(), ours.state_dict())
    assert pipeline.tokenizer("a photo of a cat")["input_ids"] == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_diffusers_computes_what_the_model_computes(tiny_model: Model, tiny_model_folder: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model_folder, safety_checker=None)
    expected = pipeline.encode_prompt("a cat", "cpu", 1, False)[0]
    condition = tiny_model.encode_text(tiny_model.tokenizer()(["a cat"]))
    assert torch.equal(condition.hidden, expected)
    x = torch.linspace(-1, 1, 4 * 64).view(1, 4, 8, 8)
    theirs = pipeline.unet(x, 500, expected).sample
    assert torch.equal(tiny_model.predict(x, torch.tensor([500]), condition), theirs)


@pytest.mark.parametrize(("prediction_type", "name"), [("epsilon", "epsilon"), ("v", "v_prediction")])
def test_a_folder_says_how_its_model_predicts(
    tiny_model: Model, tmp_path: Path, prediction_type: str, name: str
) -> None:
    tiny_model.prediction_type = prediction_type
    tiny_model.save(tmp_path / "model", "diffusers_safetensors")
    scheduler = json.loads((tmp_path / "model" / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["prediction_type"] == name
    assert (scheduler["_class_name"], scheduler["beta_schedule"]) == ("DDIMScheduler", "scaled_linear")
    index = json.loads((tmp_path / "model" / "model_index.json").read_text())
    assert index["safety_checker"] == [None, None]
    assert load_model(tmp_path / "model").prediction_type == prediction_type


def test_the_user_decides_before_the_metadata_and_that_before_the_standard(
    tiny_model_file: Path, tmp_path: Path
) -> None:
    tensors, metadata = load_tensors(tiny_model_file), open_tensors(tiny_model_file).metadata
    path = tmp_path / "x.safetensors"
    save_tensors(path, tensors, metadata | {"modelspec.prediction_type": "v"})
    assert load_model(path).prediction_type == "v"
    assert load_model(tiny_model_file).prediction_type == "epsilon"
    assert load_model(tiny_model_file, v_parameterization=True).prediction_type == "v"


def test_a_ckpt_counts_on_from_its_source(tiny_model: Model, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "a.ckpt", "ckpt", epoch=2, global_step=30)
    load_model(tmp_path / "a.ckpt").save(tmp_path / "b.ckpt", "ckpt", epoch=1, global_step=5)
    content = torch.load(tmp_path / "b.ckpt", weights_only=True)
    assert content.keys() == {"state_dict", "epoch", "global_step", "atelier.config"}
    assert (content["epoch"], content["global_step"]) == (3, 35)


def test_weights_are_cast_when_read_and_when_written(tiny_model_file: Path, tmp_path: Path) -> None:
    model = load_model(tiny_model_file, dtype="bfloat16")
    assert {tensor.dtype for tensor in weights(model).values()} == {torch.bfloat16}
    model.save(tmp_path / "x.safetensors", "safetensors", dtype=torch.float16)
    assert {tensor.dtype for tensor in load_tensors(tmp_path / "x.safetensors").values()} == {torch.float16}


def test_metadata_is_written_beside_ours(tiny_model: Model, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "x.safetensors", "safetensors", metadata={"modelspec.title": "x"})
    metadata = open_tensors(tmp_path / "x.safetensors").metadata
    assert metadata.keys() == {"modelspec.title", "atelier.config"}
    config = json.loads(metadata["atelier.config"])
    assert config["unet"] == {"attention_head_dim": 2, "norm_num_groups": 8, "sample_size": 64}
    assert config["text_encoder"] == {"hidden_act": "quick_gelu", "num_attention_heads": 2}


def test_names_without_wrapper_and_foreign_names_are_read_and_written_properly(
    tiny_model_file: Path, tmp_path: Path
) -> None:
    tensors, metadata = load_tensors(tiny_model_file), open_tensors(tiny_model_file).metadata
    odd = {name.replace(f"{TEXT}text_model.", TEXT): tensor for name, tensor in tensors.items()}
    odd[f"{TEXT}embeddings.position_ids"] = torch.arange(77).unsqueeze(0)
    odd["model_ema.decay"] = torch.tensor(0.5)
    save_tensors(tmp_path / "odd.safetensors", odd, metadata)
    load_model(tmp_path / "odd.safetensors").save(tmp_path / "x.safetensors", "safetensors")
    assert same(load_tensors(tmp_path / "x.safetensors"), tensors)


def test_vae_attention_may_be_matrices_in_a_file_and_old_names_in_a_folder(
    tiny_model: Model, tiny_model_file: Path, tmp_path: Path
) -> None:
    tensors, metadata = load_tensors(tiny_model_file), open_tensors(tiny_model_file).metadata
    assert tensors[f"{VAE}encoder.mid.attn_1.q.weight"].shape == (32, 32, 1, 1)
    flat = {name: t.flatten(1) if ".attn_1." in name and t.ndim == 4 else t for name, t in tensors.items()}
    save_tensors(tmp_path / "flat.safetensors", flat, metadata)
    assert same(weights(load_model(tmp_path / "flat.safetensors")), tensors)

    tiny_model.save(tmp_path / "old", "diffusers_safetensors")
    path = tmp_path / "old" / "vae" / "diffusion_pytorch_model.safetensors"
    new = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    vae = load_tensors(path)
    for old_name, new_name in new.items():
        vae = {name.replace(f".{new_name}.", f".{old_name}."): tensor for name, tensor in vae.items()}
    save_tensors(path, vae)
    assert same(weights(load_model(tmp_path / "old")), tensors)


def test_a_folder_is_read_from_bin_fp16_and_named_variants(tiny_model: Model, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "model", "diffusers_safetensors")
    half = {}
    for path in list((tmp_path / "model").rglob("*.safetensors")):
        half = {name: tensor.half() for name, tensor in load_tensors(path).items()}
        save_tensors(path.with_suffix(".fp16.safetensors"), half)
    assert weights(load_model(tmp_path / "model", dtype="stored"))[f"{UNET}out.2.bias"].dtype == torch.float32
    variant = load_model(tmp_path / "model", dtype="stored", variant="fp16")
    assert weights(variant)[f"{UNET}out.2.bias"].dtype == torch.float16
    with pytest.raises(UserError, match=r"unet: holds no weights \(diffusion_pytorch_model.ema.safetensors"):
        load_model(tmp_path / "model", variant="ema")
    for path in (tmp_path / "model").rglob("*.safetensors"):
        if "fp16" not in path.name:
            path.unlink()
    assert weights(load_model(tmp_path / "model", dtype="stored"))[f"{UNET}out.2.bias"].dtype == torch.float16


def other_vae(model: Model) -> dict[str, Tensor]:
    """The tiny VAE with other values, under original names."""
    return {name: tensor + 1 for name, tensor in model.part_weights("vae").items()}


@pytest.mark.parametrize(
    "kind",
    ["checkpoint", "prefixed", "bare", "bare .pt", "nested .ckpt", "diffusers file", "folder", "vae folder"],
)
def test_the_vae_is_taken_from_anything_that_holds_one(
    tiny_model: Model, tiny_model_file: Path, tmp_path: Path, kind: str
) -> None:
    expected = other_vae(tiny_model)
    metadata = open_tensors(tiny_model_file).metadata
    bare = {name.removeprefix(VAE): tensor for name, tensor in expected.items()}
    tiny_model.load_part_weights("vae", expected)
    if kind == "checkpoint":
        tiny_model.save(path := tmp_path / "x.safetensors", "safetensors")
    elif "folder" in kind or kind == "diffusers file":
        tiny_model.save(path := tmp_path / "x", "diffusers_safetensors")
        path = path / "vae" if kind != "folder" else path
        path = path / "diffusion_pytorch_model.safetensors" if kind == "diffusers file" else path
        if kind == "diffusers file":
            save_tensors(path, load_tensors(path), metadata)
    elif kind == "prefixed":
        save_tensors(path := tmp_path / "x.safetensors", expected, metadata)
    elif kind == "bare":
        save_tensors(path := tmp_path / "x.safetensors", bare, metadata)
    elif kind == "bare .pt":
        path = tmp_path / "x.pt"
        torch.save({"state_dict": bare, "atelier.config": metadata["atelier.config"]}, path)
    else:
        save_tensors(path := tmp_path / "x.ckpt", bare | {"loss.logvar": torch.ones(1)}, beside=metadata)
    model = load_model(tiny_model_file, vae=path)
    assert same(model.part_weights("vae"), expected)
    assert (model.source.path, model.vae_source.path) == (tiny_model_file, path)


def test_part_weights_are_loaded_in_place(tiny_model: Model) -> None:
    own = tiny_model.denoiser.conv_in.weight
    tensors = {name: torch.full_like(tensor, 2) for name, tensor in tiny_model.part_weights("unet").items()}
    tiny_model.load_part_weights("unet", tensors)
    assert tiny_model.denoiser.conv_in.weight is own
    assert same(tiny_model.part_weights("unet"), tensors)
    del tensors[f"{UNET}out.2.bias"]
    with pytest.raises(UserError, match=f"unet weights: {UNET}out.2.bias is missing"):
        tiny_model.load_part_weights("unet", tensors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(f"{UNET}out.2.bias"), "lacks 1 tensors of its U-Net, e.g. conv_out.bias"),
        (lambda t: t.pop(f"{UNET}out.2.weight"), "lacks conv_out.weight of its U-Net"),
        (
            lambda t: t.update({f"{UNET}out.2.bias": torch.zeros(5)}),
            r"model.diffusion_model.out.2.bias is \(5,\), expected \(4,\)",
        ),
        (
            lambda t: t.update({f"{UNET}label_emb.0.0.bias": torch.zeros(5)}),
            "its U-Net is not one of SD 1.x .*label_emb.0.0.bias has no place there",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_line(
    tiny_model_file: Path, tmp_path: Path, change, message: str
) -> None:
    tensors, metadata = load_tensors(tiny_model_file), open_tensors(tiny_model_file).metadata
    change(tensors)
    save_tensors(tmp_path / "x.safetensors", tensors, metadata)
    with pytest.raises(UserError, match=f"x.safetensors: {message}") as error:
        load_model(tmp_path / "x.safetensors")
    assert len(str(error.value).splitlines()) == 1


def test_standard_norm_groups_that_do_not_divide_the_widths_are_one_line(
    tiny_model_file: Path, tmp_path: Path
) -> None:
    save_tensors(tmp_path / "x.safetensors", load_tensors(tiny_model_file))
    with pytest.raises(UserError, match="the sizes of its VAE do not go together") as error:
        load_model(tmp_path / "x.safetensors")
    assert len(str(error.value).splitlines()) == 1


def test_damaged_metadata_is_one_line(tiny_model_file: Path, tmp_path: Path) -> None:
    for text in ("{", "[]", '{"unet": 3}'):
        save_tensors(tmp_path / "x.safetensors", load_tensors(tiny_model_file), {"atelier.config": text})
        with pytest.raises(UserError, match="its metadata atelier.config is damaged"):
            load_model(tmp_path / "x.safetensors")


def test_a_vae_of_other_latents_is_refused(tiny_model: Model, tiny_model_file: Path, tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    config = dict(tiny_model.vae.config) | {"latent_channels": 8}
    AutoencoderKL.from_config(config).save_pretrained(tmp_path / "vae")
    with pytest.raises(UserError, match="its latents have 8 channels, this model's 4; use a VAE of SD 1.x"):
        load_model(tiny_model_file, vae=tmp_path / "vae")


def test_latents_are_a_scaled_sample_of_the_posterior(tiny_model: Model) -> None:
    pixels = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    noise = torch.full((1, 4, 8, 8), 0.5)
    with torch.no_grad():
        posterior = tiny_model.vae.encode(pixels).latent_dist
        latents = tiny_model.encode_images(pixels, noise)
        decoded = tiny_model.decode_latents(latents)
        expected = tiny_model.vae.decode(latents / 0.18215).sample.clamp(-1, 1)
    assert torch.equal(latents, (posterior.mean + posterior.std * 0.5) * 0.18215)
    assert decoded.shape == (1, 3, 64, 64) and decoded.abs().max() <= 1
    assert torch.equal(decoded, expected)


class Wrapped(nn.Module):
    """A text encoder as transformers before 5.6 had it: everything one level further in."""

    def __init__(self, text_encoder: nn.Module) -> None:
        super().__init__()
        self.text_model = text_encoder

    def forward(self, **inputs: object) -> object:
        return self.text_model(**inputs)


def test_a_text_encoder_with_the_old_wrapper_gives_the_same_names_and_states(tiny_model: Model) -> None:
    tokens = tiny_model.tokenizer()(["a cat"])
    old = StableDiffusion(tiny_model.denoiser, [Wrapped(tiny_model.text_encoders[0])], tiny_model.vae)
    assert same(weights(old), weights(tiny_model))
    assert [point.path for point in old.attach_points()] == [p.path for p in tiny_model.attach_points()]
    assert torch.equal(old.encode_text(tokens, 2).hidden, tiny_model.encode_text(tokens, 2).hidden)
