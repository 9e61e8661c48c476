"""--network_args of LoRA: what is read, and what is refused."""

import pytest

from library.network.arguments import NetworkArguments, Preset, read_arguments
from library.problems import UserError
from networks import lora


def test_everything_that_can_be_given_is_read() -> None:
    found = read_arguments(
        {
            "conv_dim": "8",
            "conv_alpha": "0.5",
            "rank_dropout": "0.1",
            "module_dropout": "0.2",
            "block_dims": "2, 4,,8",
            "block_alphas": "1,,0.5",
            "conv_block_dims": "0,1",
            "conv_block_alphas": "1.5",
            "down_lr_weight": "cosine+.25",
            "mid_lr_weight": "0.5",
            "up_lr_weight": "1,,.5",
            "block_lr_zero_threshold": "0.1",
            "loraplus_lr_ratio": "16",
            "loraplus_unet_lr_ratio": "8",
            "loraplus_text_encoder_lr_ratio": "4",
        }
    )
    assert found == NetworkArguments(
        conv_dim=8,
        conv_alpha=0.5,
        rank_dropout=0.1,
        module_dropout=0.2,
        block_dims=(2, 4, 0, 8),
        block_alphas=(1.0, 0.0, 0.5),
        conv_block_dims=(0, 1),
        conv_block_alphas=(1.5,),
        down_lr_weight=Preset("cosine", 0.25),
        mid_lr_weight=(0.5,),
        up_lr_weight=(1.0, 0.0, 0.5),
        block_lr_zero_threshold=0.1,
        loraplus_lr_ratio=16.0,
        loraplus_unet_lr_ratio=8.0,
        loraplus_text_encoder_lr_ratio=4.0,
    )


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(UserError) as error:
        lora.check_arguments(
            {
                "conv_dmi": "4",
                "nothing": "1",
                "conv_dim": "0",
                "conv_alpha": "much",
                "rank_dropout": "2",
                "block_dims": "1,2.5",
                "block_alphas": "1;2",
                "down_lr_weight": "cosinus",
                "up_lr_weight": "sine+x",
                "loraplus_lr_ratio": "0",
            }
        )
    lists = "with commas between"
    curves = "sine, cosine, linear, reverse_linear, zeros"
    unknown, *others = [str(p).removeprefix("--network_args ") for p in error.value.problems]
    assert unknown == "conv_dmi: networks.lora has no such argument; did you mean conv_dim?"
    assert others[0].startswith("nothing: networks.lora has no such argument; there are conv_dim, conv_alpha")
    assert others[1:] == [
        "conv_dim: expects a whole number of 1 or more, got '0'",
        "conv_alpha: expects a number, got 'much'",
        "rank_dropout: expects a probability below 1, got '2'",
        f"block_dims: expects whole numbers of 0 or more, {lists}, got '1,2.5'",
        f"block_alphas: expects numbers of 0 or more, {lists}, got '1;2'",
        f"down_lr_weight: expects numbers of 0 or more, {lists}, or one of {curves}, got 'cosinus'",
        "up_lr_weight: expects a number of 0 or more after sine+, got 'sine+x'",
        "loraplus_lr_ratio: expects a number above 0, got '0'",
    ]


def test_the_curves_are_those_of_sd_scripts() -> None:
    half = 2**-0.5
    curves = {name: Preset(name).weights(3) for name in ("sine", "cosine", "linear", "reverse_linear")}
    assert curves["sine"] == pytest.approx([0, half, 1])
    assert curves["cosine"] == pytest.approx([1, half, 0])
    assert curves["linear"] == [0, 0.5, 1]
    assert curves["reverse_linear"] == [1, 0.5, 0]
    assert Preset("zeros", 0.25).weights(2) == [0.25, 0.25]
    assert Preset("linear", 0.5).weights(3) == [0.5, 1.0, 1.5]


def test_the_ratio_of_a_part_wins_over_the_general_one() -> None:
    assert NetworkArguments().rate_ratios == {}
    assert NetworkArguments(loraplus_lr_ratio=4.0).rate_ratios == {"unet": 4.0, "te": 4.0}
    both = NetworkArguments(loraplus_lr_ratio=4.0, loraplus_unet_lr_ratio=8.0)
    assert both.rate_ratios == {"unet": 8.0, "te": 4.0}
    assert NetworkArguments(loraplus_text_encoder_lr_ratio=2.0).rate_ratios == {"te": 2.0}


@pytest.mark.parametrize(
    ("arguments", "without"),
    [
        ({"conv_alpha": "2"}, "conv_alpha has no effect without conv_dim"),
        ({"conv_block_alphas": "2"}, "conv_block_alphas has no effect without conv_dim or conv_block_dims"),
        (
            {"block_lr_zero_threshold": "0.1"},
            "block_lr_zero_threshold has no effect without a learning-rate weight",
        ),
        ({"conv_alpha": "2", "conv_block_dims": "2"}, None),
    ],
)
def test_what_does_nothing_alone_is_a_warning(
    arguments: dict[str, str], without: str | None, capsys: pytest.CaptureFixture
) -> None:
    lora.check_arguments(arguments)
    assert capsys.readouterr().err == (f"warning: --network_args {without}\n" if without else "")
