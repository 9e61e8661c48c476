"""What a network file says about its datasets and rates, without a run."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image
from stand_ins import LATENTS

from library.data.training_data import TrainingData
from library.options.data import DataOptions
from library.options.network import NetworkOptions
from library.training.saving.metadata import describe_data, text_encoder_lr


@pytest.fixture
def described(tmp_path):
    """described(text of a dataset file) -> the ss_ keys of its data. {folder}: with an image a.png."""
    (tmp_path / "img").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "img" / "a.png")
    (tmp_path / "img" / "m.json").write_text(json.dumps({"a": {"tags": "cat"}}))

    def describe(text):
        path = tmp_path / "data.toml"
        path.write_text(text.format(folder=tmp_path / "img"))
        options = DataOptions(dataset_config=path)
        run = SimpleNamespace(data=options)
        return describe_data(run, TrainingData.scan(options, latent_space=LATENTS), SimpleNamespace())

    return describe


METADATA = """
[[datasets]]
resolution = 64
{settings}
[[datasets.subsets]]
{places}
"""


@pytest.mark.parametrize("places", ["image_dir = '{folder}/'", "image_dir = '{folder}/../img/.'"])
def test_a_subset_of_a_metadata_file_names_its_folder_and_its_file(described, places):
    text = METADATA.format(settings="", places=f"metadata_file = '{{folder}}/m.json'\n{places}")
    found = described(text)
    (dataset,) = found["ss_datasets"]
    (subset,) = dataset["subsets"]
    assert (subset["image_dir"], subset["metadata_file"]) == ("img", "m.json")
    assert dataset["is_dreambooth"] is False
    assert dataset["tag_frequency"] == found["ss_tag_frequency"] == {"m.json": {"cat": 1}}
    assert found["ss_dataset_dirs"] == {"m.json": {"n_repeats": 1, "img_count": 1}}


@pytest.mark.parametrize("enabled", [True, False])
def test_sizes_of_buckets_are_told_only_with_buckets(described, enabled):
    settings = f"enable_bucket = {str(enabled).lower()}\nmin_bucket_reso = 32\nmax_bucket_reso = 128"
    (dataset,) = described(METADATA.format(settings=settings, places="image_dir = '{folder}'"))["ss_datasets"]
    sizes = dataset["min_bucket_reso"], dataset["max_bucket_reso"]
    assert sizes == ((32, 128) if enabled else (None, None))


@pytest.mark.parametrize(
    ("given", "encoders", "expected"),
    [
        ((), 2, None),
        ((1e-5,), 2, 1e-5),
        ((1e-5, 2e-6), 2, [1e-5, 2e-6]),
        ((1e-5, 0.0), 2, [1e-5, 0.0]),
        ((1e-5, 2e-6), 1, 1e-5),
    ],
)
def test_each_text_encoder_has_its_rate(given, encoders, expected):
    network = NetworkOptions(network_module="networks.lora", text_encoder_lr=given)
    assert text_encoder_lr(network, encoders) == expected
