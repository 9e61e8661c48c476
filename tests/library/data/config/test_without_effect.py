"""Settings that come to nothing: each is one warning, and defaults are none."""

import pytest
from stand_ins import LATENTS

from library.data.config.datasets import read_datasets
from library.data.config.specs import DEFAULTS
from library.data.config.without_effect import NEEDS, YIELDS_TO
from library.options.caching import CachingOptions
from library.options.data import DataOptions
from library.options.validation import ValidationOptions


@pytest.fixture
def warnings(tmp_path, capsys):
    """warnings(option=value, ...) -> what is said about these options with a class folder."""
    (tmp_path / "img" / "1_x").mkdir(parents=True)

    def warn_about(**options):
        read_datasets(
            DataOptions(train_data_dir=tmp_path / "img", resolution=((512, 512),), **options),
            pixel_multiple=8,
        )
        return capsys.readouterr().err.splitlines()

    return warn_about


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"bucket_no_upscale": True}, "--bucket_no_upscale has no effect without --enable_bucket"),
        ({"min_bucket_reso": 128}, "--min_bucket_reso has no effect without --enable_bucket"),
        ({"max_bucket_reso": 2048}, "--max_bucket_reso has no effect without --enable_bucket"),
        ({"bucket_reso_steps": 32}, "--bucket_reso_steps has no effect without --enable_bucket"),
        (
            {"min_bucket_reso": 128, "enable_bucket": True, "bucket_no_upscale": True},
            "--min_bucket_reso has no effect with --bucket_no_upscale",
        ),
        ({"token_warmup_min": 0}, "--token_warmup_min has no effect without --token_warmup_step"),
        ({"validation_seed": 0}, "--validation_seed has no effect without --validation_split"),
        (
            {"keep_tokens": 1},
            "--keep_tokens has no effect without --shuffle_caption, --caption_tag_dropout_rate or"
            " --token_warmup_step",
        ),
    ],
)
def test_an_option_without_effect_is_a_warning(warnings, options, line):
    assert warnings(**options) == [f"warning: {line}"]


def test_options_with_what_they_need_are_none(warnings):
    assert warnings(enable_bucket=True, min_bucket_reso=128, max_bucket_reso=2048, bucket_reso_steps=32) == []
    assert warnings(token_warmup_min=3, token_warmup_step=9, keep_tokens=1) == []
    assert warnings(validation_seed=0, validation_split=0.5) == []


def test_defaults_are_no_warning_even_when_they_are_written_out(warnings, read, capsys):
    defaults = {key: DEFAULTS[key] for key in NEEDS | YIELDS_TO}
    assert warnings(**defaults) == []
    given = {key: value for key, value in defaults.items() if value is not None}
    read({"general": given, "datasets": [{"subsets": [{"image_dir": "a"}]}]}, resolution=((512, 512),))
    assert capsys.readouterr().err == ""


def test_the_conditioning_image_wins_over_the_alpha_channel(warnings, tmp_path):
    masks = {"masked_loss": True, "conditioning_data_dir": tmp_path}
    line = "warning: --alpha_mask has no effect with --conditioning_data_dir"
    assert warnings(alpha_mask=True, **masks) == [line]
    (tmp_path / "reg" / "1_y").mkdir(parents=True)  # these images have no conditioning images
    assert warnings(alpha_mask=True, reg_data_dir=tmp_path / "reg", **masks) == []


def test_what_has_no_effect_where_it_stands_is_a_warning(read, capsys):
    read(
        """
        [general]
        bucket_reso_steps = 32
        [[datasets]]
        resolution = 64
        bucket_no_upscale = true
        [[datasets.subsets]]
        image_dir = "a"
        keep_tokens = 1
        [[datasets.subsets]]
        image_dir = "b"
        keep_tokens = 1
        token_warmup_step = 3
        """
    )
    assert capsys.readouterr().err == (
        "warning: data.toml:6: dataset 1: bucket_no_upscale: has no effect without enable_bucket\n"
        "warning: data.toml:3: general: bucket_reso_steps: has no effect without enable_bucket\n"
        "warning: data.toml:9: dataset 1, subset 1: keep_tokens: has no effect without shuffle_caption,"
        " caption_tag_dropout_rate or token_warmup_step\n"
    )


def test_a_setting_of_a_wider_table_has_an_effect_where_one_subset_makes_use_of_it(read, capsys):
    text = """
        [general]
        bucket_reso_steps = 32
        [[datasets]]
        subsets = [{image_dir = "a"}]
        [[datasets]]
        enable_bucket = true
        keep_tokens = 1
        subsets = [{image_dir = "a"}, {image_dir = "b", shuffle_caption = true}]
        """
    read(text, resolution=((512, 512),), token_warmup_min=2)
    assert capsys.readouterr().err == (
        "warning: --token_warmup_min has no effect without --token_warmup_step\n"
    )


def test_masks_preservation_and_regularization_weights_need_their_images(save_image, scan, capsys, tmp_path):
    save_image("train/1_x/a.png")
    save_image("reg/1_x/b.png")
    scan(prior_loss_weight=0.5, masked_loss=True)
    assert capsys.readouterr().err == (
        "warning: --masked_loss has no effect without conditioning_data_dir or alpha_mask\n"
        "warning: --prior_loss_weight has no effect without regularization images\n"
    )
    scan(prior_loss_weight=1.0)
    scan(prior_loss_weight=0.5, reg_data_dir=tmp_path / "reg")
    assert capsys.readouterr().err == ""


def test_validation_options_need_held_out_images(save_image, tmp_path, capsys):
    from library.data.training_data import TrainingData

    save_image("train/1_x/a.png")
    save_image("train/1_x/b.png")
    options = {"train_data_dir": tmp_path / "train", "resolution": ((64, 64),)}
    asked = {"validate_every_n_steps": 5, "max_validation_steps": 2}
    TrainingData.scan(DataOptions(**options), latent_space=LATENTS, validation=ValidationOptions(**asked))
    assert capsys.readouterr().err == (
        "warning: --validate_every_n_steps has no effect without --validation_split\n"
        "warning: --max_validation_steps has no effect without --validation_split\n"
    )
    TrainingData.scan(
        DataOptions(**options), CachingOptions(), latent_space=LATENTS, validation=ValidationOptions()
    )
    options["validation_split"] = 0.5
    TrainingData.scan(DataOptions(**options), latent_space=LATENTS, validation=ValidationOptions(**asked))
    assert capsys.readouterr().err == ""


def test_settings_for_a_network_need_a_trainer_that_has_one(save_image, tmp_path, capsys):
    from library.data.training_data import TrainingData

    save_image("pictures/a.png")
    path = tmp_path / "data.toml"
    path.write_text(
        "[[datasets]]\nresolution = [[64, 64], [128, 128]]\nnetwork_multiplier = 0.5\n[[datasets.subsets]]\n"
        f"image_dir = '{tmp_path / 'pictures'}'\ncustom_attributes = {{diff_output_preservation = true}}\n"
    )
    TrainingData.scan(DataOptions(dataset_config=path), latent_space=LATENTS)
    assert capsys.readouterr().err == ""
    TrainingData.scan(DataOptions(dataset_config=path), latent_space=LATENTS, has_network=False)
    why = "has no effect as this command trains no network"
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {tmp_path / 'pictures'}: network_multiplier {why}",
        f"warning: {tmp_path / 'pictures'}: custom attribute diff_output_preservation {why}",
    ]
