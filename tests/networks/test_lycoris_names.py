"""Commands that name lycoris.kohya: its algorithms, presets and defaults, computed by the kinds here."""

from __future__ import annotations

import pytest
from kinds import make_kind

from library.network import loading
from library.network.loading import load_network_module, open_network
from library.problems import UserError
from networks import lora, lycoris_kohya

BASE = {"dim": 2, "alpha": 1.0, "dropout": None, "parts": ("unet", "te"), "seed": 1}


def create(model, **arguments: str):
    return lycoris_kohya.create(model, **BASE, arguments=arguments)


@pytest.fixture(scope="module")
def model():
    return make_kind("sd1")


@pytest.fixture(autouse=True)
def without_lycoris(monkeypatch: pytest.MonkeyPatch) -> None:
    """LyCORIS' own package is not installed."""
    installed = loading.is_installed
    ours = lambda path: path not in loading.SERVED_BY and installed(path)  # noqa: E731
    monkeypatch.setattr(loading, "is_installed", ours)


@pytest.mark.parametrize("name", ["lycoris.kohya", "lycoris.locon", "locon.locon_kohya"])
def test_its_names_are_served(name: str) -> None:
    assert load_network_module(name) is lycoris_kohya


@pytest.mark.parametrize("algo", lycoris_kohya.ALGORITHMS)
def test_each_algorithm_has_its_kind(algo: str, model, tmp_path) -> None:
    arguments = {"algo": algo, "bypass_mode": "False"}
    dim = 12 if algo == "boft" else 2
    network = lycoris_kohya.create(model, **BASE | {"dim": dim}, arguments=arguments)
    assert type(next(iter(network.by_name.values()))).__module__ in (
        lycoris_kohya.ALGORITHMS[algo],
        "networks.diag_oft",  # of which LyCORIS' BOFT is one
    )
    if algo != "ia3":
        plain = lora.create(model, **BASE, arguments={"conv_dim": "2"})
        assert network.by_name.keys() <= plain.by_name.keys()
        assert any("resnets" in name and "conv1" in name for name in network.by_name)
    from library.models.saving import Saving

    network.save(tmp_path / "x.safetensors", Saving("safetensors"))
    opened = open_network(model, tmp_path / "x.safetensors", "lycoris.kohya")
    assert opened.by_name.keys() == network.by_name.keys()


def test_presets_choose_layers(model) -> None:
    linear = lora.create(model, **BASE, arguments={}).by_name.keys()
    assert create(model, preset="attn-mlp", conv_dim="8").by_name.keys() == linear
    assert create(model, conv_dim="0").by_name.keys() == linear
    unet = {name for name in linear if name.startswith("lora_unet_")}
    assert create(model, preset="unet-transformer-only").by_name.keys() == unet
    attention = create(model, preset="attn-only").by_name.keys()
    assert attention and all("attn" in name for name in attention) and attention < linear


def test_defaults_and_old_names_are_lycoris_own(model) -> None:
    network = lycoris_kohya.create(
        model,
        **BASE | {"dim": 3, "alpha": 2.0},
        arguments={"algo": "loha", "dora_wd": "True", "dropout": "0.1"},
    )
    modules = network.by_name
    conv = next(one for name, one in modules.items() if name.endswith("resnets_0_conv1"))
    assert (conv.rank, float(conv.alpha)) == (3, 2.0)
    linear = next(one for name, one in modules.items() if name.endswith("attn1_to_q"))
    assert linear.dora_scale.shape == (linear.layer.weight.shape[0], 1)
    tucker = create(model, algo="locon", use_cp="True").tensors()
    assert any(name.endswith("lora_mid.weight") for name in tucker)
    assert tucker.keys() == create(model, algo="locon", disable_conv_cp="False").tensors().keys()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"algo": "full"}, "--network_args algo: training whole weights needs LyCORIS itself (pip"),
        ({"algo": "lohaa"}, "--network_args algo: there is no 'lohaa'; choose one of lora, locon, loha"),
        ({"preset": "mine.toml"}, "--network_args preset: 'mine.toml' is not available; choose one of full"),
        ({"train_norm": "True"}, "--network_args train_norm: needs LyCORIS itself (pip"),
        ({"algo": "loha", "nonsense": "1"}, "--network_args nonsense"),
        ({"algo": "lokr", "factor": "x"}, "--network_args factor"),
        ({"dropout": "lots"}, "--network_args dropout: expects a number, got 'lots'"),
    ],
)
def test_what_there_is_not_is_one_line(arguments: dict[str, str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        lycoris_kohya.check_arguments(arguments)
    assert said in str(caught.value) and len(caught.value.problems) == 1


def test_what_computes_is_told(capsys: pytest.CaptureFixture) -> None:
    lycoris_kohya.check_arguments({"algo": "lokr"})
    assert "lycoris.kohya: lokr is computed by networks.lokr" in capsys.readouterr().err
