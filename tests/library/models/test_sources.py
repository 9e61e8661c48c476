import fnmatch
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from library.models import check_source, check_vae, detect_family, load_model
from library.models.base import Model
from library.models.detection import is_inpainting
from library.models.saving import Saving
from library.models.sources import WEIGHT_STEMS, downloaded, find_source
from library.models.weights import load_tensors, save_tensors
from library.problems import UserError

UNET, TEXT, VAE = "model.diffusion_model.", "cond_stage_model.transformer.", "first_stage_model."
SD1 = (f"{UNET}out.2.bias", f"{TEXT}text_model.final_layer_norm.bias", f"{VAE}decoder.conv_in.bias")


def file_of(path: Path, *names: str, shape: tuple[int, ...] = (1,)) -> Path:
    """A file of tensors with nothing but names."""
    save_tensors(path, {name: torch.zeros(shape) for name in names})
    return path


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("lora_unet_mid_block.lora_down.weight",), "is a LoRA, not a model; give it to --network_weights"),
        (("unet.mid_block.to_q.lora_A.weight",), "is a LoRA, not a model; give it to --network_weights"),
        (("lora_unet_mid_block.hada_w1_a",), "is a LoHa, not a model; give it to --network_weights"),
        (("lora_unet_mid_block.lokr_w1",), "is a LoKr, not a model; give it to --network_weights"),
        (("emb_params",), "is a textual inversion embedding, not a model"),
        (("control_model.input_hint_block.0.weight",), "is a ControlNet, not a model"),
        (("clip_l", "clip_g"), "is a textual inversion embedding, not a model"),
        (("controlnet_cond_embedding.conv_in.bias",), "is a ControlNet, not a model"),
        (
            (f"{UNET}out.2.bias", "conditioner.embedders.0.model.ln_final.bias", f"{VAE}decoder.x"),
            "is an SDXL refiner; Atelier trains SD 1.x, SD 2.x, SDXL",
        ),
        ((f"{UNET}joint_blocks.0.x",), "is an SD 3 model; Atelier trains SD 1.x, SD 2.x, SDXL"),
        (
            (f"{UNET}out.2.bias", "conditioner.embedders.1.model.ln_final.bias", f"{VAE}decoder.x"),
            "has no text encoder; use a full checkpoint",
        ),
        ((f"{VAE}decoder.conv_in.bias",), "is a VAE, not a model; give it to --vae"),
        (("encoder.down.0.block.0.conv1.bias",), "is a VAE, not a model; give it to --vae"),
        (
            ("model_ema.diffusion_modelout2bias", *SD1[1:]),
            "holds only averaged weights of its U-Net (model_ema.*); use the full checkpoint",
        ),
        (
            ("model_ema.diffusion_modelout2bias",),
            "holds only averaged weights of its U-Net (model_ema.*); use the full checkpoint",
        ),
        (("weight",), "is not a Stable Diffusion checkpoint"),
        (SD1[:1], "has no text encoder and no VAE; use a full checkpoint"),
        (SD1[:2], "has no VAE; use a full checkpoint"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_file_of_another_kind_is_named_in_one_line(
    tmp_path: Path, names: tuple[str, ...], message: str, suffix: str
) -> None:
    path = file_of(tmp_path / f"x{suffix}", *names)
    with pytest.raises(UserError) as error:
        check_source(path)
    assert str(error.value) == f"{path}: {message}"


TEXTS = {
    "sd1": (f"{TEXT}text_model.final_layer_norm.bias",),
    "sd2": ("cond_stage_model.model.ln_final.bias",),
    "sdxl": (
        "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias",
        "conditioner.embedders.1.model.ln_final.bias",
    ),
}


@pytest.mark.parametrize("family", TEXTS)
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_file_is_known_by_its_names(tmp_path: Path, family: str, suffix: str) -> None:
    path = file_of(tmp_path / f"x{suffix}", f"{UNET}out.2.bias", *TEXTS[family], f"{VAE}decoder.conv_in.bias")
    assert detect_family(path) == family


def test_tiny_models_are_known_as_files_and_folders(
    kind: str, any_model_file: Path, any_model_folder: Path
) -> None:
    assert detect_family(any_model_file) == detect_family(any_model_folder) == kind.removesuffix("-v")


@pytest.mark.parametrize("family", TEXTS)
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize(
    ("channels", "what"),
    [
        (5, "a depth model: it is given a depth map"),
        (8, "an editing model, such as instruct-pix2pix"),
        (7, ""),
    ],
)
def test_a_model_with_other_input_channels_is_refused(
    tmp_path: Path, family: str, suffix: str, channels: int, what: str
) -> None:
    names = (*TEXTS[family], f"{VAE}decoder.conv_in.bias", f"{UNET}input_blocks.0.0.weight")
    path = file_of(tmp_path / f"x{suffix}", *names, shape=(320, channels, 3, 3))
    with pytest.raises(
        UserError, match=f"has {channels} input channels.*{what}.*for which training makes no"
    ):
        check_source(path)


@pytest.mark.parametrize("family", TEXTS)
def test_an_inpainting_model_is_known_by_its_nine_input_channels(tmp_path: Path, family: str) -> None:
    names = (*TEXTS[family], f"{VAE}decoder.conv_in.bias", f"{UNET}input_blocks.0.0.weight")
    for channels, is_one in ((9, True), (4, False)):
        path = file_of(tmp_path / f"{channels}.safetensors", *names, shape=(320, channels, 3, 3))
        assert is_inpainting(check_source(path)) == is_one


@pytest.mark.parametrize(
    ("kind_name", "claim", "message"),
    [
        ("sd1", {"v2": True}, "--v2: FILE is an SD 1.x model; leave --v2 out"),
        ("sdxl", {"v2": True}, "--v2: FILE is an SDXL model; leave --v2 out"),
        ("sd2", {"v1": True}, "--v1: FILE is an SD 2.x model; leave --v1 out"),
        (
            "sd1",
            {"family": "sdxl"},
            "FILE: is an SD 1.x model, this command is for SDXL; use the command without sdxl_ in its name",
        ),
        (
            "sd2",
            {"v_parameterization": True},
            "--v_parameterization: FILE says that it predicts the noise; leave it out; --objective v trains "
            "any model to predict v",
        ),
    ],
)
@pytest.mark.parametrize("format", ["safetensors", "diffusers_safetensors"])
def test_what_contradicts_the_files_is_one_line(
    saved_kind, kind_name: str, claim: dict, message: str, format: str
) -> None:
    path = saved_kind(kind_name, format)
    with pytest.raises(UserError) as error:
        check_source(path, **claim)
    assert str(error.value) == message.replace("FILE", str(path))


def test_what_agrees_with_the_files_is_fine(saved_kind) -> None:
    for format in ("safetensors", "diffusers_safetensors"):
        check_source(saved_kind("sd2-v", format), v2=True, v_parameterization=True, family="sd2")
        check_source(saved_kind("sdxl", format), family="sdxl")


def test_a_missing_file_is_asked_after_by_a_similar_name(tmp_path: Path) -> None:
    file_of(tmp_path / "dreams.safetensors", *SD1)
    with pytest.raises(UserError) as error:
        check_source(tmp_path / "dream.safetensors")
    path = tmp_path / "dream.safetensors"
    close = tmp_path / "dreams.safetensors"
    assert str(error.value) == f"{path}: there is no file or folder here; did you mean {close}?"
    with pytest.raises(UserError, match="there is no file or folder here; check the path"):
        check_source(tmp_path / "nowhere" / "else.ckpt")


def test_a_file_of_no_known_suffix_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").touch()
    with pytest.raises(UserError, match=r"x.gguf: is not a kind of file models come in; a model is a .safet"):
        check_source(tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("change", "family"),
    [({"unet": {"use_linear_projection": True}}, "sd2"), ({"text_encoder": {"hidden_act": "gelu"}}, "sd2")],
)
def test_a_folder_is_known_by_its_configs(
    tiny_model: Model, tmp_path: Path, change: dict, family: str
) -> None:
    tiny_model.save(tmp_path / "model", Saving("diffusers_safetensors"))
    change_configs(tmp_path / "model", change)
    assert detect_family(tmp_path / "model") == family


def change_configs(folder: Path, change: dict[str, dict]) -> None:
    for part, values in change.items():
        path = folder / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_folder_of_another_kind_is_named_in_one_line(tiny_model: Model, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "model", Saving("diffusers_safetensors"))
    change_configs(tmp_path / "model", {"unet": {"in_channels": 8}})
    with pytest.raises(UserError, match="has 8 input channels") as error:
        check_source(tmp_path / "model")
    assert str(error.value).startswith(f"{tmp_path / 'model'}: ")
    change_configs(tmp_path / "model", {"unet": {"in_channels": 4, "addition_embed_type": "text_time"}})
    with pytest.raises(UserError, match="is an SDXL model without its text_encoder_2; get the folder again"):
        check_source(tmp_path / "model")
    (tmp_path / "model" / "text_encoder").rename(tmp_path / "model" / "text_encoder_2")
    with pytest.raises(UserError, match="is an SDXL refiner"):
        check_source(tmp_path / "model")


def test_folders_that_are_no_model_say_what_is_missing(tiny_model: Model, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"holds no Diffusers model \(no unet folder in it\); give a model fi"
    ):
        check_source(tmp_path)
    file_of(tmp_path / "x.safetensors", *SD1)
    with pytest.raises(UserError, match=f"did you mean {tmp_path / 'x.safetensors'}"):
        check_source(tmp_path)
    tiny_model.save(tmp_path / "model", Saving("diffusers"))
    (tmp_path / "model" / "text_encoder" / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"text_encoder: holds no weights \(model.safetensors or .bin\)"):
        check_source(tmp_path / "model")


def test_what_is_given_as_vae_must_hold_one(tmp_path: Path, tiny_model_folder: Path) -> None:
    path = file_of(tmp_path / "x.safetensors", SD1[0])
    with pytest.raises(UserError, match="x.safetensors: holds no VAE"):
        check_vae(path)
    with pytest.raises(UserError, match="this folder holds no VAE"):
        check_vae(tmp_path)
    assert check_vae(tiny_model_folder).path == tiny_model_folder
    assert check_vae(file_of(tmp_path / "vae.pt", "encoder.down.0.block.0.conv1.bias")).kind == "ckpt"


def hub_cache(monkeypatch: pytest.MonkeyPatch, folder: Path, files: list[str]) -> list[list[str]]:
    """A hub that has these files; gives the list of what was asked of it."""
    asked: list[list[str]] = []

    def snapshot_download(hub_id: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        for name in files:
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).touch()
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return asked


def weights_of(suffix: str, *texts: str) -> list[str]:
    name = "pytorch_model.bin" if suffix == ".bin" else f"model{suffix}"
    unet_and_vae = [f"{part}/diffusion_pytorch_model{suffix}" for part in ("unet", "vae")]
    return [*unet_and_vae, *(f"{text}/{name}" for text in texts)]


@pytest.mark.parametrize("texts", [("text_encoder",), ("text_encoder", "text_encoder_2")])
@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".fp16.safetensors"])
def test_of_a_hub_repository_one_kind_of_weights_is_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, suffix: str, texts: tuple[str, ...]
) -> None:
    others = ["model.ckpt", "unet/diffusion_pytorch_model.non_ema.safetensors"]
    configs = ["unet/config.json", *(f"{text}/config.json" for text in texts)]
    hub_cache(monkeypatch, tmp_path, weights_of(suffix, *texts) + configs + others)
    source = find_source(f"owner/model{suffix.replace('.', '-')}{len(texts)}")
    assert (source.path, source.kind) == (tmp_path, "diffusers")
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {*weights_of(suffix, *texts), *configs}


def test_of_a_hub_repository_given_as_vae_only_that_is_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub_cache(monkeypatch, tmp_path, ["config.json", "diffusion_pytorch_model.safetensors", "x.ckpt"])
    assert check_vae("owner/vae").path == tmp_path
    assert not (tmp_path / "x.ckpt").exists()


@pytest.mark.parametrize("inside", ["", "controlnet/"])
def test_a_controlnet_of_the_hub_is_fetched_alone(
    inside: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = f"{inside}diffusion_pytorch_model.safetensors"
    asked = hub_cache(monkeypatch, tmp_path, [f"{inside}config.json", name, "unet/config.json"])
    assert downloaded(Path(f"owner/canny{len(inside)}"), "controlnet") == tmp_path / inside
    assert asked and not any("unet" in pattern for patterns in asked for pattern in patterns)
    assert downloaded(tmp_path, "controlnet") == tmp_path
    assert downloaded(Path("owner/canny.pth"), "controlnet") == Path("owner/canny.pth")


def test_a_hub_id_that_cannot_be_had_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("long\ntext")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(UserError) as error:
        check_source("owner/missing")
    assert str(error.value) == (
        "owner/missing: there is no such folder, the hub cannot be reached, and it is not in the hub's "
        "cache; check the name or the connection"
    )
    hub_cache(monkeypatch, tmp_path, ["README.md"])
    with pytest.raises(UserError, match="this hub repository holds no Diffusers model"):
        check_source("owner/empty")


def test_the_hub_cache_is_used_when_offline(tiny_model_folder: Path, tmp_path: Path) -> None:
    """A cache laid out as huggingface_hub does, and a process that may not use the network."""
    snapshot = tmp_path / "hub" / "models--owner--tiny" / "snapshots" / "abc"
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(tiny_model_folder, target_is_directory=True)
    refs = tmp_path / "hub" / "models--owner--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    code = (
        "from library.models import check_source\nfrom library.problems import UserError\n"
        "print(check_source('owner/tiny').path)\n"
        "try:\n    check_source('owner/other')\nexcept UserError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        env={"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub"), "PATH": ""},
    )
    path, problem = done.stdout.splitlines()
    assert path == str(snapshot)
    assert problem.startswith("owner/other: there is no such folder, the hub cannot be reached")


def test_checking_a_model_imports_no_torch(tiny_model_file: Path, tmp_path: Path) -> None:
    save_tensors(tmp_path / "x.ckpt", load_tensors(tiny_model_file))
    code = (
        "import sys\nfrom library.models import check_source, check_vae\n"
        f"for name in ({str(tiny_model_file)!r}, {str(tmp_path / 'x.ckpt')!r}):\n"
        "    check_source(name)\n    check_vae(name)\n"
        "print([m for m in ('torch', 'transformers', 'diffusers') if m in sys.modules])"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout == "[]\n", done.stderr


def test_loading_refuses_what_checking_refuses(tmp_path: Path) -> None:
    path = file_of(tmp_path / "x.safetensors", "emb_params")
    with pytest.raises(UserError, match="is a textual inversion embedding"):
        load_model(path)


INDEXES = {  # index and shards of a part, as diffusers and transformers name them
    "plain": ("{stem}.safetensors.index.json", "{stem}-0000{n}-of-00002.safetensors"),
    "bin": ("{stem}.bin.index.json", "{stem}-0000{n}-of-00002.bin"),
    "fp16": ("{stem}.safetensors.index.fp16.json", "{stem}.fp16-0000{n}-of-00002.safetensors"),
    "fp16 before": ("{stem}.fp16.safetensors.index.json", "{stem}-0000{n}-of-00002.fp16.safetensors"),
}


def split(folder: Path, way: str) -> dict[str, torch.Tensor]:
    """Puts a part's weights into two files with an index. Gives the weights."""
    whole = next(folder.glob("*.safetensors"))
    stem = "pytorch_model" if (way, whole.stem) == ("bin", "model") else whole.stem
    index, shard = INDEXES[way]
    weights, where = load_tensors(whole), {}
    names = sorted(weights)
    for n, some in enumerate((names[::2], names[1::2]), 1):
        file = shard.format(stem=stem, n=n)
        save_tensors(folder / file, {name: weights[name] for name in some})
        where |= dict.fromkeys(some, file)
    (folder / index.format(stem=stem)).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    whole.unlink()
    return weights


def copied(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))


@pytest.mark.parametrize("way", INDEXES)
def test_weights_in_several_files_are_read_as_one(saved_kind, tmp_path: Path, way: str) -> None:
    family = "sdxl" if way == "plain" else "sd1"
    whole = saved_kind(family, "diffusers_safetensors")
    folder = copied(whole, tmp_path / "model")
    for part in WEIGHT_STEMS:
        if (folder / part).is_dir():
            split(folder / part, way)
    assert detect_family(folder) == family and check_vae(folder).path == folder
    found, expected = load_model(folder).state_dict(), load_model(whole).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_broken_index_is_one_line(tiny_model_folder: Path, tmp_path: Path) -> None:
    unet = copied(tiny_model_folder, tmp_path / "model") / "unet"
    split(unet, "plain")
    index = unet / "diffusion_pytorch_model.safetensors.index.json"
    first, second = sorted(unet.glob("*.safetensors"))

    def message() -> str:
        with pytest.raises(UserError) as error:
            load_model(tmp_path / "model")
        return str(error.value)

    good = index.read_text()
    shard = load_tensors(second)
    name = min(shard)
    save_tensors(second, {n: t for n, t in shard.items() if n != name})
    assert message() == (
        f"{second}: lacks 1 of the tensors that its index names, e.g. {name}; get the folder again"
    )
    second.unlink()
    assert message() == (f"{index}: 1 of its 2 files are not there, e.g. {second.name}; get the folder again")
    elsewhere = [{name: f"../vae/{first.name}"}, {name: 3}, {name: str(first)}, {name: "C:x.bin"}, 7, []]
    for places in elsewhere:
        index.write_text(json.dumps({"weight_map": places}))
        assert message() == f"{index}: is damaged or no index of weights; get the file again"
    index.write_text(good[:-5])
    assert message() == f"{index}: is damaged or no index of weights; get the file again"
    index.write_text('{"weight_map": {}}')
    assert message() == f"{index}: names no weights; get the file again"


def test_of_a_hub_repository_the_files_of_an_index_are_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model_folder: Path
) -> None:
    hub = copied(tiny_model_folder, tmp_path / "hub")
    split(hub / "unet", "plain")
    (hub / "unet" / "diffusion_pytorch_model-00001-of-00002.fp16.safetensors").touch()

    def snapshot_download(hub_id: str, allow_patterns: list[str]) -> str:
        for path in hub.rglob("*"):
            name = path.relative_to(hub).as_posix()
            if path.is_file() and any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (tmp_path / "cache" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, tmp_path / "cache" / name)
        return str(tmp_path / "cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    load_model("owner/in-two-files")
    assert sorted(path.name for path in (tmp_path / "cache" / "unet").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model-00001-of-00002.safetensors",
        "diffusion_pytorch_model-00002-of-00002.safetensors",
        "diffusion_pytorch_model.safetensors.index.json",
    ]
