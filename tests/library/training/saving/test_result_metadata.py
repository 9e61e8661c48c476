import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from library.network.hashes import network_hashes
from library.options.objective import ObjectiveOptions
from library.problems import UserError
from library.training.diffusion.objective import DDPM
from library.training.saving.hashes import file_hashes
from library.training.saving.metadata import about_objective
from library.training.saving.modelspec import thumbnail_url


def test_the_model_hash_is_of_the_saved_files_tensor_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(4.0), "a": torch.ones(2, dtype=torch.float16)}
    save_file(tensors, tmp_path / "x.safetensors", {"anything": "else"})
    data = (tmp_path / "x.safetensors").read_bytes()
    body = data[8 + int.from_bytes(data[:8], "little") :]
    hashes = network_hashes(tensors, {"ss_seed": "1", "modelspec.title": "x"})
    assert hashes == {"sshs_model_hash": hashlib.sha256(body).hexdigest(), "sshs_legacy_hash": "e3b0c442"}


def test_hashes_of_a_model_file(tmp_path: Path) -> None:
    path = tmp_path / "m.ckpt"
    path.write_bytes(bytes(range(256)) * 5000)
    data = path.read_bytes()
    old = hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]
    assert file_hashes(path) == (old, hashlib.sha256(data).hexdigest())


def test_a_thumbnail_file_becomes_a_data_url(tmp_path: Path) -> None:
    (tmp_path / "t.png").write_bytes(b"\x89PNG")
    assert thumbnail_url(str(tmp_path / "t.png")) == "data:image/png;base64,iVBORw=="
    assert thumbnail_url("https://x/y.png") == "https://x/y.png"
    with pytest.raises(UserError, match="there is no file"):
        thumbnail_url(str(tmp_path / "no.png"))


def test_noise_and_loss_are_told_under_sd_scripts_keys() -> None:
    options = ObjectiveOptions(noise_offset=0.1, loss_type="huber", huber_c=0.2)
    assert {
        key: str(value) for key, value in about_objective(options, DDPM("v", ends_in_noise=True)).items()
    } == {
        "ss_noise_offset": "0.1",
        "ss_noise_offset_random_strength": "False",
        "ss_adaptive_noise_scale": "None",
        "ss_multires_noise_iterations": "None",
        "ss_multires_noise_discount": "0.3",
        "ss_ip_noise_gamma": "None",
        "ss_ip_noise_gamma_random_strength": "False",
        "ss_zero_terminal_snr": "True",
        "ss_min_snr_gamma": "None",
        "ss_loss_type": "huber",
        "ss_huber_schedule": "snr",
        "ss_huber_c": "0.2",
        "ss_huber_scale": "1.0",
        "ss_debiased_estimation": "False",
    }
