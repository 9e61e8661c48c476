"""Files that are given as a model or a LoRA and cannot be one: damaged, of another kind, or made to hurt.

Each is written by a function of the path to write (a file's, or a folder's) and the tensors of a good one.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from library.models.weights import save_tensors

Tensors = dict[str, torch.Tensor]
UNET, TEXT, VAE = "model.diffusion_model.", "cond_stage_model.transformer.", "first_stage_model."
CONV = f"{UNET}input_blocks.0.0.weight"
DOWN = "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"
DAMAGED = "is damaged or"


class Hostile(NamedTuple):
    """name: of the file, with its suffix. make: writes it. said: a part of the line about it."""

    name: str
    make: Callable[[Path, Tensors], object]
    said: str


def models() -> list[Hostile]:
    """Given as --pretrained_model_name_or_path; the tensors are those of a model."""
    return [*_headers(), *_contents(), *_torch_files(), *_kinds(), *_weights()]


def loras() -> list[Hostile]:
    """Given as a network's weights; the tensors are those of a LoRA for the model."""
    half = DOWN.removesuffix("lora_down.weight")
    return [
        _changed("lora_empty", {}, "holds no network of a kind that is known here", keep=()),
        _changed(
            "lora_of_another_model",
            {},
            "have no place in this model",
            rename=lambda n: n.replace("unet", "far").replace("te_", "far_"),
        ),
        _changed("lora_half", {f"{half}lora_up.weight": None}, "tensors are missing"),
        _changed("lora_alone", {}, "tensors are missing", keep=(f"{half}alpha", DOWN)),
        _changed("lora_rank_0", {DOWN: torch.zeros(0, 64)}, "has no rank"),
        _changed("lora_0_dim", {DOWN: torch.zeros(())}, "has no rank"),
        _changed("lora_1_dim", {DOWN: torch.zeros(4)}, "has no rank"),
        _changed("lora_shape", {DOWN: torch.zeros(4, 3)}, "does not fit the model's layer"),
        _changed("lora_claims", {DOWN: torch.zeros(2**18, 1)}, "does not fit the model's layer"),
        _changed("lora_3_dims", {DOWN: torch.zeros(4, 8, 8)}, "this network has"),
        _changed("lora_nan", {DOWN: torch.full((4, 64, 1, 1), math.nan)}, "values that are no numbers"),
        _changed("lora_int", {DOWN: torch.zeros(4, 64, 1, 1, dtype=torch.int8)}, "int8 values"),
        _changed("lora_alpha", {f"{half}alpha": torch.ones(3)}, "an alpha that is no number"),
        _changed("lora_and_loha", {"lora_unet_x.hada_w1_a": torch.zeros(2, 2)}, "mixes kinds of networks"),
        _changed("lora_more", {"lora_unet_x.dora_scale": torch.zeros(2)}, "tensors are missing"),
        Hostile("lora_text.safetensors", _bytes(b"<lora:x:1>"), DAMAGED),
        Hostile("lora_page.safetensors", _bytes(b"<!DOCTYPE html><title>Log in</title>"), "is a web page"),
        Hostile(
            "lora_code.pt", lambda path, _: path.write_bytes(pickle.dumps({"a": Call()})), "pickled code"
        ),
        Hostile("lora_cut.safetensors", _cut(0.5), "is cut off"),
        Hostile("lora_folder.safetensors", lambda path, _: path.mkdir(), "is a folder"),
    ]


def folders() -> list[Hostile]:
    """Diffusers folders, given as a model; made of a good one, which is at the path already."""
    unet, text = "unet/config.json", "text_encoder/config.json"
    weights = "unet/diffusion_pytorch_model.safetensors"
    index = f"{weights}.index.json"
    scheduler = "scheduler/scheduler_config.json"
    cases = {
        "no_unet": (lambda folder: (folder / "unet").rename(folder / "other"), "holds no Diffusers model"),
        "transformer": (
            lambda folder: (folder / "unet").rename(folder / "transformer"),
            "with a transformer",
        ),
        "no_weights": (lambda folder: (folder / weights).unlink(), "holds no weights"),
        "weights_folder": (lambda folder: _as_folder(folder / weights), "holds no weights"),
        "weights_pipe": (lambda folder: _as_pipe(folder / weights), "holds no weights"),
        "weights_loop": (lambda folder: _as_loop(folder / weights), "holds no weights"),
        "weights_page": (_write(weights, b"<html>"), "is a web page"),
        "weights_of_lora": (
            lambda folder: save_tensors(folder / weights, {DOWN: torch.zeros(4, 4)}),
            "lacks",
        ),
        "config_text": (_write(unet, b"hello"), "is not valid JSON"),
        "config_not_utf8": (_write(unet, b"\xff\xfe{"), "is not valid JSON"),
        "config_deep": (_write(unet, b"[" * 300_000), "is not valid JSON"),
        "config_long": (_write(unet, b'{"a": "' + b"x" * 11_000_000 + b'"}'), "is not valid JSON"),
        "config_folder": (lambda folder: _as_folder(folder / unet), "is not valid JSON"),
        "config_pipe": (lambda folder: _as_pipe(folder / unet), "is not valid JSON"),
        "heads_text": (_setting(unet, attention_head_dim="8"), "attention_head_dim is '8'"),
        "heads_0": (_setting(unet, attention_head_dim=0), "attention_head_dim is '0'"),
        "heads_huge": (_setting(unet, attention_head_dim=10**400), "attention_head_dim is"),
        "heads_nan": (_setting(unet, attention_head_dim=math.nan), "attention_head_dim is 'nan'"),
        "heads_list": (_setting(unet, attention_head_dim=[8]), "do not go together"),
        "groups_7": (_setting(unet, norm_num_groups=7), "do not go together"),
        "channels_text": (_setting(unet, in_channels="four"), "has four input channels"),
        "channels_list": (_setting(unet, in_channels=[4]), "input channels"),
        "scale_negative": (_setting("vae/config.json", scaling_factor=-1), "scaling_factor is '-1'"),
        "scale_infinite": (_setting("vae/config.json", scaling_factor=math.inf), "scaling_factor is 'inf'"),
        "activation_list": (_setting(text, hidden_act=["gelu"]), "hidden_act is"),
        "activation_code": (_setting(text, hidden_act="os.system"), "hidden_act is 'os.system'"),
        "scheduler_edm": (
            _setting(scheduler, _class_name="EDMEulerScheduler"),
            "was trained with EDM's noise",
        ),
        "scheduler_deep": (_write(scheduler, b'{"a":' * 300_000), "is not valid JSON"),
        "index_outside": (_indexed(index, weights, "../../x.safetensors"), "is damaged or no index"),
        "index_absolute": (_indexed(index, weights, "/etc/passwd"), "is damaged or no index"),
        "index_of_itself": (_indexed(index, weights, Path(index).name), "is damaged or no index"),
        "index_missing": (_indexed(index, weights, "a.safetensors"), "1 of its 1 files are not there"),
        "index_number": (_indexed(index, weights, 7), "is damaged or no index"),
        "index_list": (_without(weights, index, b"[]"), "is damaged or no index"),
        "index_deep": (_without(weights, index, b'{"weight_map":' * 200_000), "is damaged or no index"),
    }
    return [
        Hostile(name, lambda path, _, make=make: make(path), said) for name, (make, said) in cases.items()
    ]


def _write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def _without(gone: str, name: str, content: bytes) -> Callable[[Path], object]:
    """A file in the place of another one."""

    def make(folder: Path) -> None:
        (folder / gone).unlink()
        (folder / name).write_bytes(content)

    return make


def _indexed(index: str, weights: str, place: object) -> Callable[[Path], object]:
    return _without(weights, index, json.dumps({"weight_map": {"conv_in.weight": place}}).encode())


def _setting(name: str, **values: object) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        config = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(config | values))

    return make


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _as_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


class Call:
    """What pickles as a call."""

    def __reduce__(self) -> tuple:
        return os.getenv, ("HOME",)


def _bytes(content: bytes) -> Callable[[Path, Tensors], object]:
    return lambda path, _: path.write_bytes(content)


def _header(text: bytes, more: bytes = b"", claims: int | None = None) -> Callable[[Path, Tensors], object]:
    """A .safetensors of this header. claims: the size that it says the header has."""
    size = struct.pack("<Q", len(text) if claims is None else claims)
    return _bytes(size + text + more)


def _entry(**changes: Any) -> bytes:
    good = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    return json.dumps({"a": good | changes}).encode()


def _headers() -> list[Hostile]:
    cases = {
        "no_bytes": _bytes(b""),
        "seven_bytes": _bytes(bytes(7)),
        "no_header": _bytes(struct.pack("<Q", 100)),
        "header_of_2_to_64": _header(b"{}", claims=2**64 - 1),
        "header_of_1_gb": _header(b"{}", claims=2**30),
        "header_cut": _header(b'{"a": {"dtype"', claims=500),
        "header_longer_than_file": _header(_entry(), claims=10_000),
        "header_shorter": _header(_entry(), bytes(4), claims=9),
        "not_json": _header(b"not json at all"),
        "not_utf8": _header(b'{"\xff\xfe\xfa": {}}'),
        "utf16": _header('{"a": {}}'.encode("utf-16")),
        "list": _header(b"[]"),
        "number": _header(b"1"),
        "null": _header(b"null"),
        "deep_lists": _header(b"[" * 200_000),
        "deep_objects": _header(b'{"a":' * 200_000),
        "long_number": _header(_entry(shape=[1]).replace(b"[1]", b"[" + b"9" * 100_000 + b"]"), bytes(4)),
        "many_values": _header(b'{"a":[' + b"0," * 2_500_000 + b"0]}"),
        "entry_is_text": _header(b'{"a": "b"}'),
        "entry_is_null": _header(b'{"a": null}'),
        "entry_empty": _header(b'{"a": {}}'),
        "metadata_list": _header(b'{"__metadata__": [1]}'),
        "metadata_numbers": _header(b'{"__metadata__": {"a": 1}}'),
        "bad_dtype": _header(_entry(dtype="F99"), bytes(4)),
        "dtype_is_list": _header(_entry(dtype=["F32"]), bytes(4)),
        "negative_side": _header(_entry(shape=[-1]), bytes(4)),
        "huge_side": _header(_entry(shape=[2**62]), bytes(4)),
        "huge_sides": _header(_entry(shape=[2**40, 2**40]), bytes(4)),
        "empty_of_huge": _header(_entry(shape=[0, 2**70], data_offsets=[0, 0])),
        "sides_of_halves": _header(_entry(shape=[1.5]), bytes(4)),
        "sides_of_text": _header(_entry(shape=["1"]), bytes(4)),
        "shape_is_text": _header(_entry(shape="1"), bytes(4)),
        "offset_negative": _header(_entry(data_offsets=[-4, 0]), bytes(4)),
        "offset_reversed": _header(_entry(data_offsets=[4, 0]), bytes(4)),
        "offset_nan": _header(_entry(data_offsets=[0, math.nan]), bytes(4)),
        "offsets_three": _header(_entry(data_offsets=[0, 4, 8]), bytes(4)),
        "offset_gap": _header(_entry(data_offsets=[4, 8]), bytes(8)),
        "overlap": _header(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            b'"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            bytes(8),
        ),
        "same_key_twice": _header(_entry()[:-1] + b"," + _entry()[1:], bytes(4)),
    }
    return [Hostile(f"{name}.safetensors", make, _SAID.get(name, DAMAGED)) for name, make in cases.items()]


_SAID = {"header_longer_than_file": "is cut off"}


def _contents() -> list[Hostile]:
    """Files of other kinds under a model's name."""
    said = {
        "page": (b"\n <!DOCTYPE html><html><title>Log in</title>", "is a web page"),
        "feed": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is a web page"),
        "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        "text": (b"put the model here\n", DAMAGED),
        "json": (b'{"error": "Invalid username or password."}', DAMAGED),
        "gguf": (b"GGUF\x03\0\0\0" + bytes(200), DAMAGED),
        "picture": (b"\x89PNG\r\n\x1a\n" + bytes(200), DAMAGED),
        "gzip": (b"\x1f\x8b\x08" + bytes(200), DAMAGED),
        "zeros": (bytes(5000), DAMAGED),
        "ones": (b"\xff" * 5000, DAMAGED),
    }
    return [
        Hostile(f"{name}{suffix}", _bytes(content), line)
        for name, (content, line) in said.items()
        for suffix in (".safetensors", ".ckpt")
        if (name, suffix) != ("zeros", ".safetensors")  # an empty header, read as a file of no tensors
    ]


def _torch_files() -> list[Hostile]:
    def zipped(entries: dict[str, bytes]) -> Callable[[Path, Tensors], object]:
        def make(path: Path, _: Tensors) -> None:
            with zipfile.ZipFile(path, "w") as archive:
                for name, content in entries.items():
                    archive.writestr(name, content)

        return make

    def without(entry: str) -> Callable[[Path, Tensors], object]:
        """A good file that lacks an entry."""

        def make(path: Path, tensors: Tensors) -> None:
            save_tensors(path, dict(list(tensors.items())[:3]))
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if not name.endswith(entry)]
                zipped({name: archive.read(name) for name in names})(path, {})

        return make

    recursive = b"\x80\x02]q\x00h\x00a."
    cases = {
        "code": (lambda path, _: path.write_bytes(pickle.dumps(Call())), "holds pickled code"),
        "code_in_zip": (zipped({"a/data.pkl": pickle.dumps({"x": Call()})}), "holds pickled code"),
        "empty_zip": (zipped({}), "holds 0 pickles"),
        "pictures_zip": (zipped({"a.png": b"x"}), "holds 0 pickles"),
        "two_pickles": (zipped({"a/data.pkl": b"}.", "b/data.pkl": b"}."}), "holds 2 pickles"),
        "recursive": (zipped({"a/data.pkl": recursive}), "holds no named tensors"),
        "list": (zipped({"a/data.pkl": pickle.dumps([1])}), "holds no named tensors"),
        "empty_pickle": (zipped({"a/data.pkl": b""}), DAMAGED),
        "deep_tuples": (
            zipped({"a/data.pkl": b"\x80\x02)" + b"\x85" * 50_000 + b"."}),
            "holds no named tensors",
        ),
        "no_storage": (without("data/0"), DAMAGED),
        "big_endian": (zipped({"a/data.pkl": b"}.", "a/byteorder": b"big"}), "was written on a big-endian"),
        "cut_zip": (_cut(0.9), DAMAGED),
        "cut_start": (_cut(0.01), DAMAGED),
    }
    return [Hostile(f"{name}.ckpt", make, line) for name, (make, line) in cases.items()]


def _cut(share: float) -> Callable[[Path, Tensors], object]:
    def make(path: Path, tensors: Tensors) -> None:
        save_tensors(path, tensors)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return make


def _changed(
    name: str,
    changes: dict[str, torch.Tensor | None],
    said: str,
    *,
    keep: tuple[str, ...] | None = None,
    rename: Callable[[str], str] = str,
) -> Hostile:
    """A good file with other tensors (None: without). keep: only these."""

    def make(path: Path, tensors: Tensors) -> None:
        kept = {rename(n): t for n, t in tensors.items() if keep is None or n in keep}
        save_tensors(path, {n: t for n, t in (kept | changes).items() if t is not None})

    return Hostile(f"{name}.safetensors", make, said)


def _kinds() -> list[Hostile]:
    """Files of tensors that are no model, or none of those that are trained here."""
    said = {
        "lora_unet_x.lora_down.weight": "is a LoRA, not a model",
        "transformer.x.lora_A.weight": "is a LoRA, not a model",
        "lora_unet_x.hada_w1_a": "is a LoHa, not a model",
        "lora_unet_x.lokr_w1": "is a LoKr, not a model",
        "lora_unet_x.oft_blocks": "is not a Stable Diffusion checkpoint",
        "emb_params": "is a textual inversion embedding",
        "clip_g": "is a textual inversion embedding",
        "control_model.input_hint_block.0.weight": "is a ControlNet",
        "controlnet_cond_embedding.conv_in.weight": "is a ControlNet",
        "lllite_unet_x.down.0.weight": "is not a Stable Diffusion checkpoint",
        "model.0.weight": "is not a Stable Diffusion checkpoint",  # ESRGAN
        "first_stage_model.decoder.conv_in.weight": "is a VAE",
        "decoder.conv_in.weight": "is not a Stable Diffusion checkpoint",
        "encoder.down_blocks.0.resnets.0.conv1.weight": "is a VAE",
        "double_blocks.0.img_attn.qkv.weight": "is a Flux model",
        "model.diffusion_model.double_blocks.0.x": "is a Flux model",
        "model.diffusion_model.joint_blocks.0.x": "is an SD 3 model",
        "blocks.0.scale_shift_table": "is not a Stable Diffusion checkpoint",  # PixArt
        "blocks.0.cross_attn.k.weight": "is not a Stable Diffusion checkpoint",  # Wan
        "text_model.encoder.layers.0.mlp.fc1.weight": "is not a Stable Diffusion checkpoint",
        "model_ema.diffusion_modelout2bias": "holds only averaged weights",
        "edm_mean": "was trained with EDM's noise",
    }
    return [
        _changed(f"kind_{number:02d}", {name: torch.zeros(1)}, line, keep=())
        for number, (name, line) in enumerate(said.items())
    ]


def _weights() -> list[Hostile]:
    """Models with one wrong tensor."""
    fill = torch.full((32, 4, 3, 3), 0.1)
    return [
        _changed("missing", {f"{UNET}out.2.weight": None}, "lacks"),
        _changed("missing_text", {f"{TEXT}text_model.final_layer_norm.bias": None}, "lacks 1 tensors"),
        _changed("foreign", {f"{UNET}out.9.weight": fill}, "has no place there"),
        _changed("level_1000000", {f"{UNET}input_blocks.1000000.0.weight": fill}, "has no place there"),
        _changed("shape", {f"{UNET}time_embed.0.weight": torch.zeros(2, 3)}, "expected (128, 32)"),
        _changed("channels", {CONV: torch.zeros(32, 5, 3, 3)}, "has 5 input channels (a depth model"),
        _changed("no_dims", {CONV: torch.zeros(())}, "do not go together"),
        _changed("no_values", {CONV: torch.zeros(0, 4, 3, 3)}, "expected (32, 4, 3, 3)"),
        _changed("nan", {CONV: fill * math.nan}, "values that are no numbers"),
        _changed("int8", {CONV: fill.to(torch.int8)}, "int8 values"),
        _changed("bool", {CONV: fill.bool()}, "bool values"),
        _changed("huge_vocabulary", {_TOKENS: torch.zeros(2**20, 1, dtype=torch.float8_e5m2)}, "expected"),
    ]


_TOKENS = f"{TEXT}text_model.embeddings.token_embedding.weight"
