"""Checkpoints of every kind -> model -> checkpoints of every kind, tensor by tensor."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from library.models import load_model
from library.models.ldm.model import LatentDiffusion as Model
from library.models.saving import Saving
from library.models.sd.model import SD1, StableDiffusion
from library.models.weights import load_tensors, open_tensors, save_tensors
from library.problems import UserError

UNET, TEXT, VAE = "model.diffusion_model.", "cond_stage_model.transformer.", "first_stage_model."
FORMATS = {"ckpt": ".ckpt", "safetensors": ".safetensors", "diffusers": "", "diffusers_safetensors": ""}


def weights(model: Model) -> dict[str, Tensor]:
    return {name: t for part in model.parts for name, t in model.part_weights(part).items()}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
        for name, tensor in expected.items()
    )


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """U-Net and VAE in precisions of their own, text encoders in another."""
    dtypes = {UNET: torch.float16, VAE: torch.float32}
    return {
        name: tensor.to(next((d for prefix, d in dtypes.items() if name.startswith(prefix)), torch.bfloat16))
        for name, tensor in tensors.items()
    }


def prediction(model: Model, x: Tensor) -> Tensor:
    with torch.no_grad():
        condition = model.encode_text(model.tokenizer()(["a cat"]))
        sizes = torch.tensor([[64, 48, 0, 8, 32, 32]])
        return model.predict(x, torch.tensor([500]), replace(condition, sizes=sizes))


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_file_through_the_model_stays_the_same(any_model_file: Path, tmp_path: Path, suffix: str) -> None:
    tensors = halved(load_tensors(any_model_file))
    metadata = open_tensors(any_model_file).metadata
    save_tensors(tmp_path / f"a{suffix}", tensors, metadata, metadata)
    model = load_model(tmp_path / f"a{suffix}", dtype="stored")
    model.save(tmp_path / f"b{suffix}", Saving(suffix[1:]))
    assert same(load_tensors(tmp_path / f"b{suffix}"), tensors)
    assert open_tensors(tmp_path / f"b{suffix}").metadata["atelier.config"] == metadata["atelier.config"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_model_saved_in_any_format_loads_as_the_same_model(
    any_model: Model, tmp_path: Path, format: str
) -> None:
    path = tmp_path / f"model{FORMATS[format]}"
    any_model.save(path, Saving(format))
    loaded = load_model(path)
    assert same(weights(loaded), weights(any_model))
    assert (loaded.family, loaded.prediction_type) == (any_model.family, any_model.prediction_type)
    configs = [
        {key: value for key, value in model.denoiser.config.items() if key[0] != "_"}
        | {f"text {i}": encoder.config.to_dict() for i, encoder in enumerate(model.text_encoders)}
        | {"groups": model.vae.config.norm_num_groups, "scale": model.vae.config.scaling_factor}
        for model in (loaded, any_model)
    ]
    assert json.loads(json.dumps(configs[0])) == json.loads(json.dumps(configs[1]))
    beside = [path.with_suffix(".yaml").name] if any_model.family == "sd2" and FORMATS[format] else []
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, *beside]
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_a_file_and_a_folder_of_a_model_compute_the_same(
    any_model_file: Path, any_model_folder: Path
) -> None:
    x = torch.linspace(-1, 1, 4 * 64).view(1, 4, 8, 8)
    one, other = (load_model(path) for path in (any_model_file, any_model_folder))
    assert torch.equal(prediction(one, x), prediction(other, x))
    assert torch.equal(one.decode_latents(x), other.decode_latents(x))


@pytest.mark.parametrize("format", FORMATS)
def test_diffusers_loads_every_format_with_equal_tensors(
    any_model: Model, any_model_folder: Path, tmp_path: Path, format: str
) -> None:
    import diffusers

    pipeline_type = getattr(diffusers, any_model.layout.pipeline)
    path = tmp_path / f"model{FORMATS[format]}"
    any_model.save(path, Saving(format))
    if FORMATS[format]:
        pipeline = pipeline_type.from_single_file(
            path, config=str(any_model_folder), local_files_only=True, safety_checker=None
        )
    else:
        pipeline = pipeline_type.from_pretrained(path, local_files_only=True)
    for name, module in any_model.parts.items():
        assert same(getattr(pipeline, name).state_dict(), module.state_dict()), name
    assert pipeline.tokenizer("a photo of a cat")["input_ids"] == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_diffusers_computes_what_the_model_computes(any_model: Model, any_model_folder: Path) -> None:
    import diffusers

    pipeline = getattr(diffusers, any_model.layout.pipeline).from_pretrained(any_model_folder)
    texts = ["a cat", "a photo of a dog " * 30]
    condition = any_model.encode_text(any_model.tokenizer()(texts))
    x, t = torch.linspace(-1, 1, 2 * 4 * 64).view(2, 4, 8, 8), torch.tensor([500, 20])
    sizes = torch.tensor([[64, 48, 0, 8, 32, 32], [100, 200, 3, 4, 56, 78]])
    more = {}
    if any_model.family == "sdxl":
        hidden, _, pooled, _ = pipeline.encode_prompt(texts, device="cpu", do_classifier_free_guidance=False)
        more = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes.float()}}
        assert torch.equal(condition.pooled, pooled)
    else:
        hidden = pipeline.encode_prompt(texts, "cpu", 1, False)[0]
    assert torch.equal(condition.hidden, hidden)
    theirs = pipeline.unet(x, t, hidden, **more).sample
    ours = any_model.predict(x, t, replace(condition, sizes=sizes))
    # Not to the bit on every processor: ours has some layers that share an input in one product.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_tokenizer_of_a_folder_pads_as_its_text_encoder_learned(
    any_model: Model, any_model_folder: Path
) -> None:
    from transformers import CLIPTokenizer

    ours = any_model.tokenizer()(["a cat"])
    folders = ["tokenizer", "tokenizer_2"][: len(any_model.text_encoders)]
    for name, ids in zip(folders, ours, strict=True):
        tokenizer = CLIPTokenizer.from_pretrained(any_model_folder / name)
        padded = tokenizer("a cat", padding="max_length", max_length=77)["input_ids"]
        assert padded == ids[0, 0].tolist()


@pytest.mark.parametrize(("prediction_type", "name"), [("epsilon", "epsilon"), ("v", "v_prediction")])
def test_a_folder_says_how_its_model_predicts(
    tiny_model: Model, tmp_path: Path, prediction_type: str, name: str
) -> None:
    tiny_model.prediction_type = prediction_type
    tiny_model.save(tmp_path / "model", Saving("diffusers_safetensors"))
    scheduler = json.loads((tmp_path / "model" / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["prediction_type"] == name
    assert (scheduler["_class_name"], scheduler["beta_schedule"]) == ("DDIMScheduler", "scaled_linear")
    index = json.loads((tmp_path / "model" / "model_index.json").read_text())
    assert index["safety_checker"] == [None, None]
    assert load_model(tmp_path / "model").prediction_type == prediction_type


def test_a_folder_of_sdxl_has_the_scheduler_and_marks_that_were_published(saved_kind) -> None:
    folder = saved_kind("sdxl", "diffusers_safetensors")
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["_class_name"] == "EulerDiscreteScheduler"
    assert (scheduler["prediction_type"], scheduler["timestep_spacing"]) == ("epsilon", "leading")
    index = json.loads((folder / "model_index.json").read_text())
    assert index["force_zeros_for_empty_prompt"] is True
    assert index["text_encoder_2"] == ["transformers", "CLIPTextModelWithProjection"]


@pytest.mark.parametrize(
    ("metadata", "more", "expected"),
    [
        ({"modelspec.prediction_type": "v"}, {}, "v"),
        ({"modelspec.predict_key": "v"}, {"unknown": torch.zeros(0)}, "v"),
        ({"modelspec.prediction_type": "epsilon"}, {"v_pred": torch.zeros(0)}, "epsilon"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, {}, "v"),
        ({"modelspec.architecture": "stable-diffusion-v2-512"}, {}, "epsilon"),
        ({}, {"v_pred": torch.zeros(0)}, "v"),
        ({}, {}, "epsilon"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_metadata_or_a_mark_say_how_a_file_predicts(
    tiny_model_file: Path, tmp_path: Path, suffix: str, metadata: dict, more: dict, expected: str
) -> None:
    told = json.loads(open_tensors(tiny_model_file).metadata["atelier.config"])
    del told["prediction_type"]
    metadata = metadata | {"atelier.config": json.dumps(told)}
    save_tensors(tmp_path / f"x{suffix}", load_tensors(tiny_model_file) | more, metadata, metadata)
    assert load_model(tmp_path / f"x{suffix}").prediction_type == expected


def test_the_user_decides_only_where_the_file_says_nothing(tiny_model_file: Path, tmp_path: Path) -> None:
    told = json.loads(open_tensors(tiny_model_file).metadata["atelier.config"])
    del told["prediction_type"]
    path = tmp_path / "x.safetensors"
    save_tensors(path, load_tensors(tiny_model_file), {"atelier.config": json.dumps(told)})
    assert load_model(path, v_parameterization=True).prediction_type == "v"
    with pytest.raises(UserError) as error:
        load_model(tiny_model_file, v_parameterization=True)
    assert str(error.value) == (
        f"--v_parameterization: {tiny_model_file} says that it predicts the noise; leave it out; "
        "--objective v trains any model to predict v"
    )


def test_an_sd_2_file_that_does_not_say_how_it_predicts_gives_a_warning(
    saved_kind, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = saved_kind("sd2", "safetensors")
    told = json.loads(open_tensors(source).metadata["atelier.config"])
    del told["prediction_type"]
    path = tmp_path / "x.safetensors"
    save_tensors(path, load_tensors(source), {"atelier.config": json.dumps(told)})
    assert load_model(path).prediction_type == "epsilon"
    assert "x.safetensors does not say whether it predicts the noise or v" in capsys.readouterr().err
    assert load_model(path, v_parameterization=True).prediction_type == "v"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("kind_name", "line"), [("sd2", None), ("sd2-v", '    parameterization: "v"')])
def test_beside_an_sd_2_file_is_the_description_other_programs_look_for(
    saved_kind, kind_name: str, line: str | None
) -> None:
    text = saved_kind(kind_name, "safetensors").with_suffix(".yaml").read_text()
    assert "FrozenOpenCLIPEmbedder" in text and "context_dim: 1024" in text
    assert [row for row in text.splitlines() if "parameterization" in row] == ([line] if line else [])


def test_spare_tensors_of_an_sd_2_file_are_kept_and_a_folder_gets_copies(saved_kind, tmp_path: Path) -> None:
    """Of three layers the first two are computed with."""
    source, prefix = saved_kind("sd2", "safetensors"), "cond_stage_model.model."
    tensors, metadata = load_tensors(source), open_tensors(source).metadata
    spare = {name for name in tensors if ".resblocks.2." in name} | {
        f"{prefix}text_projection",
        f"{prefix}logit_scale",
    }
    tensors |= {name: torch.full_like(tensors[name], 3) for name in spare}
    save_tensors(tmp_path / "x.safetensors", tensors, metadata)
    model = load_model(tmp_path / "x.safetensors")
    model.save(tmp_path / "y.safetensors", Saving("safetensors"))
    assert same(load_tensors(tmp_path / "y.safetensors"), tensors)

    without = {name: tensor for name, tensor in tensors.items() if name not in spare}
    save_tensors(tmp_path / "z.safetensors", without, metadata)
    assert same(weights(load_model(tmp_path / "z.safetensors")), weights(model))
    load_model(tmp_path / "z.safetensors").save(tmp_path / "z2.safetensors", Saving("safetensors"))
    assert same(load_tensors(tmp_path / "z2.safetensors"), without)

    model.save(tmp_path / "folder", Saving("diffusers_safetensors"))
    load_model(tmp_path / "folder").save(tmp_path / "w.safetensors", Saving("safetensors"))
    back = load_tensors(tmp_path / "w.safetensors")
    assert same({name: back[name] for name in without}, without)
    assert back.keys() == tensors.keys()
    for name in spare - {f"{prefix}text_projection", f"{prefix}logit_scale"}:
        assert torch.equal(back[name], back[name.replace(".resblocks.2.", ".resblocks.1.")])
    assert back[f"{prefix}logit_scale"] == 1 and (back[f"{prefix}text_projection"] == 1).all()


@pytest.mark.parametrize("wanted", ["matrices", "convolutions"])
def test_sd_2_projections_may_be_matrices_or_convolutions(saved_kind, tmp_path: Path, wanted: str) -> None:
    source = saved_kind("sd2", "safetensors")
    tensors, metadata = load_tensors(source), open_tensors(source).metadata
    convolved = {
        name: t[:, :, None, None]
        if name.endswith((".proj_in.weight", ".proj_out.weight")) and t.ndim == 2
        else t
        for name, t in tensors.items()
    }
    save_tensors(tmp_path / "x.safetensors", convolved, metadata)
    x = torch.linspace(-1, 1, 4 * 64).view(1, 4, 8, 8)
    model = load_model(tmp_path / "x.safetensors", linear_projection=wanted == "matrices")
    torch.testing.assert_close(prediction(model, x), prediction(load_model(source), x))
    model.save(tmp_path / "y.safetensors", Saving("safetensors"))
    assert same(load_tensors(tmp_path / "y.safetensors"), tensors if wanted == "matrices" else convolved)


def test_a_ckpt_counts_on_from_its_source(tiny_model: Model, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "a.ckpt", Saving("ckpt", epoch=2, step=30))
    load_model(tmp_path / "a.ckpt").save(tmp_path / "b.ckpt", Saving("ckpt", epoch=1, step=5))
    content = torch.load(tmp_path / "b.ckpt", weights_only=True)
    assert content.keys() == {"state_dict", "epoch", "global_step", "atelier.config"}
    assert (content["epoch"], content["global_step"]) == (3, 35)


def test_weights_are_cast_when_read_and_when_written(tiny_model_file: Path, tmp_path: Path) -> None:
    model = load_model(tiny_model_file, dtype="bfloat16")
    assert {tensor.dtype for tensor in weights(model).values()} == {torch.bfloat16}
    model.save(tmp_path / "x.safetensors", Saving("safetensors", dtype=torch.float16))
    assert {tensor.dtype for tensor in load_tensors(tmp_path / "x.safetensors").values()} == {torch.float16}


def test_metadata_is_written_beside_ours(tiny_model: Model, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "x.safetensors", Saving("safetensors", metadata={"modelspec.title": "x"}))
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
    load_model(tmp_path / "odd.safetensors").save(tmp_path / "x.safetensors", Saving("safetensors"))
    assert same(load_tensors(tmp_path / "x.safetensors"), tensors)


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_other_tensors_of_a_file_are_kept_as_they_are_when_asked(
    tiny_model_file: Path, tmp_path: Path, suffix: str
) -> None:
    tensors, metadata = load_tensors(tiny_model_file), open_tensors(tiny_model_file).metadata
    others = {f"model_ema.weight{number}": torch.ones(3) for number in range(20)}
    others |= {"model_ema.decay": torch.tensor(0.99, dtype=torch.float64), "betas": torch.linspace(0, 1, 5)}
    save_tensors(tmp_path / "full.safetensors", tensors | others, metadata)
    model = load_model(tmp_path / "full.safetensors", dtype="stored", keeps_others=True)
    model.save(tmp_path / f"x.{suffix}", Saving(suffix, dtype=torch.float16))
    saved = load_tensors(tmp_path / f"x.{suffix}")
    assert same({name: saved[name] for name in others}, others)
    assert saved.keys() == tensors.keys() | others.keys()
    order = [name for name in load_tensors(tmp_path / "full.safetensors") if name in others]
    assert list(model.others) == order
    assert {saved[name].dtype for name in tensors} == {torch.float16}


def test_vae_attention_may_be_matrices_in_a_file_and_old_names_in_a_folder(
    tiny_model: Model, tiny_model_file: Path, tmp_path: Path
) -> None:
    tensors, metadata = load_tensors(tiny_model_file), open_tensors(tiny_model_file).metadata
    assert tensors[f"{VAE}encoder.mid.attn_1.q.weight"].shape == (32, 32, 1, 1)
    flat = {name: t.flatten(1) if ".attn_1." in name and t.ndim == 4 else t for name, t in tensors.items()}
    save_tensors(tmp_path / "flat.safetensors", flat, metadata)
    assert same(weights(load_model(tmp_path / "flat.safetensors")), tensors)

    tiny_model.save(tmp_path / "old", Saving("diffusers_safetensors"))
    path = tmp_path / "old" / "vae" / "diffusion_pytorch_model.safetensors"
    new = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    vae = load_tensors(path)
    for old_name, new_name in new.items():
        vae = {name.replace(f".{new_name}.", f".{old_name}."): tensor for name, tensor in vae.items()}
    save_tensors(path, vae)
    assert same(weights(load_model(tmp_path / "old")), tensors)


def test_a_folder_is_read_from_bin_fp16_and_named_variants(tiny_model: Model, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "model", Saving("diffusers_safetensors"))
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
        tiny_model.save(path := tmp_path / "x.safetensors", Saving("safetensors"))
    elif "folder" in kind or kind == "diffusers file":
        tiny_model.save(path := tmp_path / "x", Saving("diffusers_safetensors"))
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


def test_part_weights_are_loaded_back(any_model: Model) -> None:
    expected = {part: any_model.part_weights(part) for part in any_model.parts}
    expected = {part: {k: t.clone() for k, t in tensors.items()} for part, tensors in expected.items()}
    for parameter in any_model.parameters():
        parameter.data.zero_()
    for part, tensors in expected.items():
        any_model.load_part_weights(part, tensors)
        assert same(any_model.part_weights(part), tensors)


def test_part_weights_are_loaded_in_place(tiny_model: Model) -> None:
    own = tiny_model.denoiser.conv_in.weight
    tensors = {name: torch.full_like(tensor, 2) for name, tensor in tiny_model.part_weights("unet").items()}
    tiny_model.load_part_weights("unet", tensors)
    assert tiny_model.denoiser.conv_in.weight is own
    assert same(tiny_model.part_weights("unet"), tensors)
    del tensors[f"{UNET}out.2.bias"]
    with pytest.raises(UserError, match="unet weights: conv_out.bias is missing"):
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
    wrapped = Wrapped(tiny_model.text_encoders[0])
    old = StableDiffusion(tiny_model.denoiser, [wrapped], tiny_model.vae, layout=SD1)
    assert same(weights(old), weights(tiny_model))
    assert [point.path for point in old.attach_points()] == [p.path for p in tiny_model.attach_points()]
    assert torch.equal(old.encode_text(tokens, 2).hidden, tiny_model.encode_text(tokens, 2).hidden)


@pytest.mark.parametrize("name", ["edm_mean", "edm_std", "edm_vpred.sigma_max"])
def test_a_model_of_another_noise_is_refused(tiny_model_file: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, load_tensors(tiny_model_file) | {name: torch.zeros(1)})
    with pytest.raises(UserError, match="was trained with EDM's noise"):
        load_model(path)
