import pickle

import numpy as np
import pytest
import torch
from stand_ins import together

from library.data.caches.text_cache import TextFiles, cache_text_outputs
from library.problems import UserError

FILES = TextFiles("encoders", "a tokenizer", 75, None, "float32")


class CountingEncoder:
    """A stand-in for two text encoders: outputs know their caption. Keeps what it was asked."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype, self.batches = dtype, []

    def __call__(self, captions: list[str]) -> dict[str, torch.Tensor]:
        self.batches.append(captions)
        return {
            "hidden_state1": torch.stack([states(text) for text in captions]).to(self.dtype),
            "pool2": torch.tensor([[float(len(text)), 1.5] for text in captions], dtype=self.dtype),
        }

    @property
    def captions(self) -> list[str]:
        return [caption for batch in self.batches for caption in batch]


def states(text: str) -> torch.Tensor:
    """(77, 4), different for each text."""
    return torch.tensor([[len(text) + 0.25, sum(text.encode()), row, 1 / (row + 3)] for row in range(77)])


@pytest.fixture
def data(save_image, scan):
    for name, caption in (("a", "a cat"), ("b", "a dog"), ("c", "a cat"), ("d", "")):
        save_image(f"train/2_x/{name}.png", caption=caption)
    return scan()


def cache(data, encode=None, **options):
    settings = {"batch_size": 2, "progress": False}
    return cache_text_outputs(data, encode or CountingEncoder(), **(settings | options))


def files_in(tmp_path):
    return sorted(path.name for path in (tmp_path / "train" / "2_x").glob("*.npz"))


def test_every_caption_and_the_empty_one_is_encoded_once_in_batches(data):
    encode = CountingEncoder()
    cache(data, encode)
    assert encode.batches == [[""], ["a cat", "a dog"]]


@pytest.mark.parametrize("disk", [None, FILES])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_batch_has_the_outputs_of_its_captions_and_of_dropped_ones(data, disk, dtype):
    outputs = cache(data, CountingEncoder(dtype), disk=disk).outputs([1, 2, 1, 3], ["a dog", "a cat", "", ""])
    expected = CountingEncoder(dtype)(["a dog", "a cat", "", ""])
    assert outputs.keys() == expected.keys()
    for name, output in outputs.items():
        assert output.dtype == dtype and torch.equal(output, expected[name])


def test_a_caption_is_encoded_as_it_is_trained_on(save_image, scan):
    save_image("train/2_x/a.png", caption="a;;;b")
    data = scan(secondary_separator=";;;", caption_prefix="by me", caption_dropout_rate=0.5)
    encode = CountingEncoder()
    assert cache(data, encode).captions == ["by me a,b"]
    assert encode.captions == ["", "by me a,b"]


def test_the_outputs_of_a_caption_do_not_keep_the_memory_of_their_batch(data):
    for entry in cache(data, batch_size=4).entries:
        for output in entry.values():
            assert output.untyped_storage().nbytes() == output.numel() * output.element_size()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_file_is_what_sd_scripts_reads(data, tmp_path, dtype):
    cache(data, CountingEncoder(dtype), disk=FILES)
    assert files_in(tmp_path) == [f"{name}_te_outputs.npz" for name in "abcd"]
    with np.load(tmp_path / "train" / "2_x" / "b_te_outputs.npz") as file:
        assert sorted(file) == ["atelier", "hidden_state1", "pool2"]
        assert file["hidden_state1"].dtype == (np.float16 if dtype == torch.float16 else np.float32)
        assert np.array_equal(file["hidden_state1"], states("a dog").to(dtype).float().numpy())
        assert file["pool2"].tolist() == [5.0, 1.5]


def test_a_second_run_makes_only_what_is_missing(data, tmp_path, capsys):
    first = CountingEncoder()
    cache(data, first, disk=FILES)
    assert sorted(first.captions) == ["", "", "a cat", "a dog"]
    assert capsys.readouterr().out == "text outputs on disk: 0 were there already, 4 made\n"
    for name in "ac":
        (tmp_path / "train" / "2_x" / f"{name}_te_outputs.npz").unlink()
    second = CountingEncoder()
    cache(data, second, disk=FILES)
    assert second.captions == ["", "a cat"]
    assert capsys.readouterr().out == "text outputs on disk: 2 were there already, 2 made\n"


def test_a_picture_with_two_captions_has_two_files_that_stay(save_image, scan, tmp_path, capsys):
    folder = save_image("images/a.png", caption="a cat").parent
    (folder / "a.txt").write_text("a house")
    config = tmp_path / "data.toml"
    subset = f"[[datasets]]\nresolution = 64\n[[datasets.subsets]]\nimage_dir = '{folder}'\n"
    config.write_text(f"{subset}caption_extension = '.caption'\n{subset}caption_extension = '.txt'\n")
    data = scan(dataset_config=config)
    capsys.readouterr()
    for expected in ("0 were there already, 2 made", "2 were there already, 0 made"):
        cached = cache(data, disk=FILES)
        assert capsys.readouterr().out == f"text outputs on disk: {expected}\n"
    outputs = cached.outputs([0, 1], ["a cat", "a house"])
    assert torch.equal(outputs["hidden_state1"], torch.stack([states("a cat"), states("a house")]))
    names = sorted(path.name for path in folder.glob("*.npz"))
    assert len(names) == 2 and "a_te_outputs.npz" in names


def test_a_folder_named_in_two_ways_is_one_folder(save_image, scan, tmp_path):
    folder = save_image("images/a.png", caption="a cat").parent
    (folder / "a.txt").write_text("a house")
    (tmp_path / "x").mkdir()
    config = tmp_path / "data.toml"
    config.write_text(
        "".join(
            f"[[datasets]]\nresolution = 64\n[[datasets.subsets]]\nimage_dir = '{path}'\n"
            f"caption_extension = '{extension}'\n"
            for path, extension in ((folder, ".caption"), (tmp_path / "x" / ".." / "images", ".txt"))
        )
    )
    cached = cache(scan(dataset_config=config), disk=FILES)
    outputs = cached.outputs([0, 1], ["a cat", "a house"])
    assert torch.equal(outputs["hidden_state1"], torch.stack([states("a cat"), states("a house")]))
    assert len(list(folder.glob("*.npz"))) == 2


def test_with_skip_check_outputs_of_another_shape_are_a_problem_when_they_are_read(data, tmp_path):
    cache(data, disk=FILES)
    path = tmp_path / "train" / "2_x" / "b_te_outputs.npz"
    np.savez(path, hidden_state1=np.zeros((152, 4), np.float32), pool2=np.zeros(2, np.float32))
    cached = cache(data, disk=TextFiles("", "", 75, None, "", skip_check=True))
    with pytest.raises(
        UserError, match=r"b_te_outputs.npz: hidden_state1 has the shape \(152, 4\) instead of"
    ):
        cached.outputs([1], ["a dog"])


def test_outputs_that_another_run_made_again_are_no_batch_of_this_one(data):
    caches = together(lambda sharing: cache(data, disk=FILES, sharing=sharing))
    caches.append(pickle.loads(pickle.dumps(cache(data, disk=FILES))))
    for cached in caches:
        assert torch.equal(cached.outputs([1], ["a dog"])["hidden_state1"][0], states("a dog"))

    def another(captions):
        return {name: output + 1 for name, output in CountingEncoder()(captions).items()}

    cache(data, another, disk=TextFiles("others", "a tokenizer", 75, None, "float32"))
    for cached in caches:
        with pytest.raises(UserError, match=r"b_te_outputs.npz: was made again by another run; start again$"):
            cached.outputs([1], ["a dog"])


def test_a_name_too_long_for_a_cache_file_is_found_before_its_caption_is_encoded(save_image, scan):
    image = save_image(f"train/1_x/{'a' * 245}.png")
    encode = CountingEncoder()
    with pytest.raises(UserError) as caught:
        cache(scan(), encode, disk=FILES)
    assert encode.captions == [""]
    cause = "its name is too long for a cache file beside it"
    fix = "rename it, or cache in memory: without _to_disk"
    assert str(caught.value) == f"{image.resolve()}: {cause}; {fix}"


def test_with_skip_check_files_are_used_as_they_are(data):
    cache(data, disk=FILES)
    encode = CountingEncoder()
    cache(data, encode, disk=TextFiles("others", "another", 75, None, "float32", skip_check=True))
    assert encode.captions == [""]


@pytest.mark.parametrize("disk", [None, FILES])
def test_outputs_that_are_not_finite_name_their_caption(data, disk, tmp_path):
    def broken(captions):
        outputs = CountingEncoder()(captions)
        outputs["pool2"][[index for index, text in enumerate(captions) if "dog" in text]] = float("inf")
        return outputs

    with pytest.raises(UserError, match="caption 'a dog': the text encoder gives NaN for it"):
        cache(data, broken, disk=disk)
    assert "b_te_outputs.npz" not in files_in(tmp_path)


@pytest.mark.parametrize("disk", [None, FILES])
def test_processes_share_the_captions_and_all_get_everything(data, capsys, disk):
    encoders = [CountingEncoder(), CountingEncoder()]
    caches = together(lambda sharing: cache(data, encoders[sharing.rank], disk=disk, sharing=sharing))
    captions = [encoder.captions for encoder in encoders]
    assert sorted(captions[0] + captions[1]) == ["", "", "a cat", "a dog"] if disk else ["", "a cat", "a dog"]
    assert all(captions)
    expected = CountingEncoder()(["a cat", "a dog", ""])
    for cached in caches:
        outputs = cached.outputs([2, 1, 0], ["a cat", "a dog", ""])
        assert torch.equal(outputs["hidden_state1"], expected["hidden_state1"])
    if disk:
        assert capsys.readouterr().out == "text outputs on disk: 0 were there already, 4 made\n"


@pytest.mark.parametrize("disk", [None, FILES])
def test_a_cache_can_be_pickled(data, disk):
    cached = pickle.loads(pickle.dumps(cache(data, disk=disk)))
    assert torch.equal(cached.outputs([0], ["a cat"])["hidden_state1"][0], states("a cat"))


def test_the_progress_bar_counts_captions(data, capsys):
    cache(data, progress=True)
    assert "2/2" in capsys.readouterr().err
