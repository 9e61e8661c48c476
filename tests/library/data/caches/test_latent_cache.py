import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import LATENTS, CountingVae, encode, together

from library.data.caches.latent_cache import cache_latents
from library.data.caches.latent_files import LatentFiles
from library.data.views import centre_view, to_pixels
from library.latent_space import LatentSpace
from library.problems import UserError

FILES = LatentFiles("_sd", "a VAE", "float32")


@pytest.fixture
def data(save_image, scan):
    for index, size in enumerate([(64, 64), (130, 44), (64, 64), (100, 70), (65, 64)]):
        save_image(f"train/2_x/{index}.png", size)
    return scan(enable_bucket=True, min_bucket_reso=32, bucket_reso_steps=32, flip_aug=True)


def cache(data, vae=encode, **options):
    settings = {"latent_space": replace(LATENTS, scale=0.5), "batch_size": 2, "progress": False}
    return cache_latents(data, vae, **(settings | options))


def assert_same_latents(one, other, data):
    for index in range(len(data.records)):
        for is_flipped in (False, True):
            assert torch.equal(one[index, is_flipped], other[index, is_flipped])


def files_in(tmp_path):
    return sorted(path.name for path in (tmp_path / "train" / "2_x").glob("*.npz"))


def test_every_image_and_its_mirror_image_is_encoded_whatever_the_batch_size(data):
    one, four = CountingVae(), CountingVae()
    single = cache(data, one, batch_size=1)
    batches = cache(data, four, batch_size=4)
    assert one.count == four.count == 10
    assert_same_latents(single, batches, data)
    assert {record.fit.bucket for record in data.records} == {(64, 64), (96, 32)}
    for index, record in enumerate(data.records):
        width, height = record.fit.bucket
        assert single[index, True].shape == (4, height // 8, width // 8)
        assert single[index, True].dtype == torch.float32


@pytest.mark.parametrize("disk", [None, FILES])
def test_a_latent_is_made_from_the_centre_crop_and_scaled(data, disk):
    noiseless = cache(
        data,
        lambda pixels, noise: encode(pixels, noise * 0),
        disk=disk,
        latent_space=replace(LATENTS, scale=0.18215),
    )
    for index, record in enumerate(data.records):
        for is_flipped in (False, True):
            pixels = to_pixels([centre_view(record, index=index, flip=is_flipped).load()[0]])
            expected = encode(pixels, torch.zeros(1, 4, *[side // 8 for side in reversed(record.fit.bucket)]))
            assert torch.equal(noiseless[index, is_flipped], expected[0] * 0.18215)


def test_latents_are_the_same_in_memory_and_from_files_and_wherever_an_image_stands(data, save_image, scan):
    in_memory = cache(data)
    assert_same_latents(in_memory, cache(data, disk=FILES), data)
    assert_same_latents(in_memory, cache(data, disk=FILES), data)
    save_image("train/2_x/!first.png", (64, 64))
    more = cache(scan(enable_bucket=True, min_bucket_reso=32, bucket_reso_steps=32, flip_aug=True))
    for index in range(5):
        assert torch.equal(more[index + 1, True], in_memory[index, True])


def test_the_noise_of_a_latent_is_its_own(data):
    noise = cache(data, lambda pixels, noise: noise, latent_space=LATENTS)
    latents = [noise[index, is_flipped].flatten()[:64] for index in range(5) for is_flipped in (False, True)]
    assert len({tuple(latent.tolist()) for latent in latents}) == 10
    assert 0.8 < torch.cat(latents).std() < 1.2


def test_mirror_images_are_not_encoded_without_flip_aug(save_image, scan):
    save_image("train/1_x/a.png")
    vae = CountingVae()
    assert cache(scan(), vae)[0, False].shape == (4, 8, 8)
    assert vae.count == 1


def test_a_file_is_what_sd_scripts_reads(data, tmp_path):
    latents = cache(data, disk=FILES, latent_space=replace(LATENTS, scale=0.5))
    assert files_in(tmp_path) == [
        "0_0064x0064_sd.npz",
        "1_0130x0044_sd.npz",
        "2_0064x0064_sd.npz",
        "3_0100x0070_sd.npz",
        "4_0065x0064_sd.npz",
    ]
    with np.load(tmp_path / "train" / "2_x" / "3_0100x0070_sd.npz") as file:
        assert sorted(file) == ["atelier", "crop_ltrb", "latents", "latents_flipped", "original_size"]
        assert np.array_equal(file["latents"] * np.float32(0.5), latents[3, False].numpy())
        assert np.array_equal(file["latents_flipped"] * np.float32(0.5), latents[3, True].numpy())
        assert file["latents"].dtype == np.float32
        assert file["original_size"].tolist() == [100, 70]
        # 100 x 70 fitted into 64 x 64 leaves bars above and below.
        assert data.records[3].fit.bucket == (64, 64)
        assert file["crop_ltrb"].tolist() == pytest.approx([0, 9, 64, 9 + 44.8])


def test_a_second_run_makes_nothing_and_says_so(data, capsys):
    cache(data, disk=FILES)
    assert capsys.readouterr().out == "latents on disk: 0 were there already, 5 made\n"
    vae = CountingVae()
    cache(data, vae, disk=FILES)
    assert vae.count == 0
    assert capsys.readouterr().out == "latents on disk: 5 were there already, 0 made\n"


def test_only_what_is_missing_is_made(data, tmp_path, capsys):
    whole = cache(data, disk=FILES)
    (tmp_path / "train" / "2_x" / "3_0100x0070_sd.npz").unlink()
    capsys.readouterr()
    vae = CountingVae()
    assert_same_latents(cache(data, vae, disk=FILES), whole, data)
    assert vae.count == 2
    assert capsys.readouterr().out == "latents on disk: 4 were there already, 1 made\n"


@pytest.mark.parametrize("disk", [None, FILES])
def test_masks_are_the_alpha_channels_cut_and_mirrored_like_their_pictures(save_image, scan, tmp_path, disk):
    alpha = np.zeros((64, 72), np.uint8)
    alpha[:, 36:] = 200
    image = Image.new("RGBA", (72, 64), "red")
    image.putalpha(Image.fromarray(alpha))
    save_image("train/2_x/b.png")
    image.save(tmp_path / "train" / "2_x" / "a.png")
    data = scan(alpha_mask=True, flip_aug=True)
    latents = cache(data, disk=disk)
    expected = alpha[:, 4:68].astype(np.float32) / 255
    assert latents.mask(0, False).dtype == np.float32
    assert np.array_equal(latents.mask(0, False), expected)
    assert np.array_equal(latents.mask(0, True), expected[:, ::-1])
    assert latents.mask(1, False) is None
    if disk:
        with np.load(tmp_path / "train" / "2_x" / "b_0064x0064_sd.npz") as file:
            assert np.array_equal(file["alpha_mask"], np.ones((64, 64), np.float32))
        assert cache(scan(flip_aug=True), disk=disk).mask(0, False) is None


def test_a_picture_in_two_datasets_is_encoded_once_with_what_both_need(save_image, scan, tmp_path):
    folder = save_image("images/a.png").parent
    config = tmp_path / "data.toml"
    config.write_text(
        f"""[[datasets]]
        resolution = 64
        [[datasets.subsets]]
        image_dir = '{folder}'
        [[datasets]]
        resolution = 64
        [[datasets.subsets]]
        image_dir = '{folder}'
        flip_aug = true
        """
    )
    vae = CountingVae()
    latents = cache(scan(dataset_config=config), vae)
    assert vae.count == 2
    assert torch.equal(latents[0, False], latents[1, False])
    assert latents[1, True].shape == (4, 8, 8)


def test_latents_of_half_precision_are_kept_as_float32(data):
    half = cache(data, lambda pixels, noise: encode(pixels, noise).half(), batch_size=4)
    assert {half[index, False].dtype for index in range(5)} == {torch.float32}


def test_a_cached_latent_does_not_keep_the_memory_of_its_batch(data):
    for entry in cache(data, batch_size=4).entries:
        assert all(array.base is None or array.base.nbytes == array.nbytes for array in entry.values())


@pytest.mark.parametrize("disk", [None, FILES])
def test_a_cache_can_be_pickled(data, disk):
    latents = cache(data, disk=disk)
    assert_same_latents(pickle.loads(pickle.dumps(latents)), latents, data)


@pytest.mark.parametrize("disk", [None, FILES])
def test_all_images_that_cannot_be_decoded_are_found_in_one_pass(data, tmp_path, disk):
    break_images(tmp_path, "0.png", "3.png")
    with pytest.raises(UserError) as caught:
        cache(data, disk=disk)
    assert sorted(re.split(r"[/\\]", problem.where)[-1] for problem in caught.value.problems) == [
        "0.png",
        "3.png",
    ]


@pytest.mark.parametrize("disk", [None, FILES])
def test_bad_images_can_be_left_out_and_are_named(data, tmp_path, capsys, disk):
    whole = cache(data)
    break_images(tmp_path, "0.png", "3.png")
    latents = cache(data, disk=disk, skip_bad=True)
    assert latents.bad == {0, 3}
    assert torch.equal(latents[4, True], whole[4, True])
    said = capsys.readouterr()
    assert re.findall(r"left out: \S*?(\d\.png)", said.err) == ["0.png", "3.png"]
    if disk:
        assert said.out == "latents on disk: 0 were there already, 3 made\n"


def test_a_dataset_of_bad_images_is_a_problem(data, tmp_path, capsys):
    break_images(tmp_path, *(f"{index}.png" for index in range(5)))
    with pytest.raises(UserError, match="there is no image that can be used"):
        cache(data, skip_bad=True)


def break_images(tmp_path, *names):
    for name in names:
        path = tmp_path / "train" / "2_x" / name
        path.write_bytes(path.read_bytes()[:60])


def overflowing(pixels, noise):
    """A VAE in half precision that gives NaN for dark pictures."""
    latents = encode(pixels, noise)
    latents[pixels.mean(dim=(1, 2, 3)) < 0, 0, 0, 0] = float("nan")
    return latents


@pytest.mark.parametrize("disk", [None, FILES])
def test_latents_that_are_not_finite_name_their_images_and_are_not_kept(save_image, scan, tmp_path, disk):
    make_dark_and_light(tmp_path)
    with pytest.raises(UserError) as caught:
        cache(scan(), overflowing, batch_size=4, disk=disk)
    where, cause = str(caught.value).split(": ", 1)
    assert where.endswith("dark.png")
    assert cause == "the VAE gives NaN or infinite latents for it; try --no_half_vae"
    assert "dark_0064x0064_sd.npz" not in files_in(tmp_path)


@pytest.mark.parametrize("disk", [None, FILES])
def test_latents_that_are_not_finite_are_encoded_again_exactly(scan, tmp_path, capsys, disk):
    make_dark_and_light(tmp_path)
    exactly = CountingVae()
    latents = cache(scan(), overflowing, batch_size=4, disk=disk, encode_exactly=exactly)
    assert exactly.count == 1
    assert_same = cache(scan())
    for index in range(2):
        assert torch.equal(latents[index, False], assert_same[index, False])
    note = "warning: the VAE gave NaN for 1 pictures, which were encoded in float32 then: dark.png\n"
    assert capsys.readouterr().err == note


def test_latents_that_are_not_finite_either_way_are_a_problem(scan, tmp_path):
    make_dark_and_light(tmp_path)
    with pytest.raises(UserError, match=r"dark.png: the VAE gives NaN .* use another VAE"):
        cache(scan(), overflowing, encode_exactly=overflowing)


def make_dark_and_light(tmp_path):
    folder = tmp_path / "train" / "2_x"
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 64), "black").save(folder / "dark.png")
    Image.new("RGB", (64, 64), "white").save(folder / "light.png")


def test_a_folder_that_cannot_be_written_to_is_one_problem_before_any_work(data, monkeypatch):
    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    vae = CountingVae()
    with pytest.raises(UserError) as caught:
        cache(data, vae, disk=FILES)
    assert vae.count == 0
    assert len(caught.value.problems) == 1
    cause = "2_x: cannot be written to (Permission denied); "
    fix = "make it writable, or cache in memory: without _to_disk"
    assert str(caught.value).endswith(cause + fix)
    monkeypatch.undo()
    cache(data, disk=FILES)
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    cache(data, vae, disk=FILES)  # nothing to write
    assert vae.count == 0


def test_with_skip_check_files_are_used_as_they_are(data, tmp_path):
    cache(data, disk=FILES)
    unchecked = LatentFiles("_sd", "another VAE", "float32", skip_check=True)
    vae = CountingVae()
    latents = cache(data, vae, disk=unchecked)
    assert vae.count == 0
    path = tmp_path / "train" / "2_x" / "0_0064x0064_sd.npz"
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"0_0064x0064_sd.npz: cannot be read \(.*\); run again without"):
        latents[0, False]


@pytest.mark.parametrize("there_already", [False, True])
def test_latents_that_another_run_made_again_are_no_batch_of_this_one(data, tmp_path, there_already):
    if there_already:
        cache(data, disk=FILES)
    caches = together(lambda sharing: cache(data, disk=FILES, sharing=sharing))
    caches.append(pickle.loads(pickle.dumps(caches[0])))
    alone = cache(data)
    for latents in caches:
        assert_same_latents(latents, alone, data)
    cache(data, lambda pixels, noise: noise, disk=LatentFiles("_sd", "another VAE", "float32"))
    for latents in caches:
        for index in range(5):
            said = rf"{index}_\d+x\d+_sd.npz: was made again by another run; start again$"
            with pytest.raises(UserError, match=said):
                latents[index, True]


@pytest.mark.parametrize("skip_check", [False, True])
def test_names_too_long_for_a_cache_file_are_found_before_any_work(save_image, scan, skip_check):
    images = [save_image(f"train/1_x/{letter * 240}.png") for letter in "ab"]
    save_image("train/1_x/c.png")
    vae = CountingVae()
    with pytest.raises(UserError) as caught:
        cache(scan(), vae, disk=LatentFiles("_sd", "a VAE", "float32", skip_check))
    assert vae.count == 0
    fix = "rename it, or cache in memory: without _to_disk"
    assert sorted(str(problem) for problem in caught.value.problems) == [
        f"{image.resolve()}: its name is too long for a cache file beside it; {fix}" for image in images
    ]


@pytest.mark.parametrize("name", ["latents", "alpha_mask"])
def test_with_skip_check_a_file_of_another_shape_is_a_problem_when_it_is_read(
    save_image, scan, tmp_path, name
):
    save_image("train/1_x/!first.png", (130, 44))
    save_image("train/1_x/a.png")
    path = tmp_path / "train" / "1_x" / "a_0064x0064_sd.npz"
    arrays = {"latents": np.zeros((4, 8, 8), np.float32), "alpha_mask": np.zeros((64, 64), np.float32)}
    np.savez(path, **{**arrays, name: arrays[name][..., :5]})
    data = scan(alpha_mask=True, enable_bucket=True, min_bucket_reso=32, bucket_reso_steps=32)
    latents = cache(data, disk=LatentFiles("_sd", "", "", skip_check=True))
    assert latents[0, False].shape == (4, 4, 12)
    latents = latents.part(1, None)
    with pytest.raises(UserError, match=rf"a_0064x0064_sd.npz: {name} has the shape .* --skip_cache_check"):
        latents[0, False] if name == "latents" else latents.mask(0, False)


@pytest.mark.parametrize("disk", [None, FILES])
def test_processes_share_the_work_and_all_get_everything(data, capsys, disk):
    alone = cache(data)
    vaes = [CountingVae(), CountingVae()]
    caches = together(lambda sharing: cache(data, vaes[sharing.rank], disk=disk, sharing=sharing))
    assert sorted(vae.count for vae in vaes) == [4, 6]  # of five pictures and their mirror images
    for latents in caches:
        assert_same_latents(latents, alone, data)
    if disk:
        assert capsys.readouterr().out == "latents on disk: 0 were there already, 5 made\n"
        together(lambda sharing: cache(data, vaes[sharing.rank], disk=disk, sharing=sharing))
        assert vaes[0].count + vaes[1].count == 10


@pytest.mark.parametrize("disk", [None, FILES])
def test_processes_raise_all_problems_together(data, tmp_path, disk):
    break_images(tmp_path, "0.png", "1.png", "2.png", "3.png")
    errors = together(lambda sharing: cache(data, disk=disk, sharing=sharing))
    for error in errors:
        assert isinstance(error, UserError)
        assert sorted(problem.where[-5:] for problem in error.problems) == [
            "0.png",
            "1.png",
            "2.png",
            "3.png",
        ]


def test_processes_leave_out_the_same_images_and_say_so_once(data, tmp_path, capsys):
    break_images(tmp_path, "0.png", "1.png", "2.png")
    caches = together(lambda sharing: cache(data, disk=FILES, sharing=sharing, skip_bad=True))
    assert [latents.bad for latents in caches] == [{0, 1, 2}, {0, 1, 2}]
    assert capsys.readouterr().err.count("left out: ") == 3


@pytest.mark.parametrize("disk", [None, FILES])
def test_the_progress_bar_counts_images(data, capsys, disk):
    cache(data, progress=True, disk=disk)
    assert "5/5" in capsys.readouterr().err


def test_the_progress_bar_stands_for_all_processes(data, capsys):
    together(lambda sharing: cache(data, progress=True, sharing=sharing))
    said = capsys.readouterr().err
    assert "5/5" in said and said.count("caching latents: 100%") == 1


@pytest.mark.parametrize("disk", [None, FILES])
def test_latents_of_other_spaces_have_their_channels_and_are_scaled_by_channel(data, disk):
    scale, shift = tuple(0.5 + number for number in range(16)), tuple(range(16))
    space = LatentSpace(16, 16, 16, scale=scale, shift=tuple(map(float, shift)))
    given = {}

    def encode_widely(pixels, noise):
        latents = torch.nn.functional.avg_pool2d(pixels, 16)[:, :1] + noise
        given.update((latent.numpy().tobytes(), latent) for latent in latents)
        return latents

    cached = cache(data, encode_widely, disk=disk, latent_space=space)
    for index, record in enumerate(data.records):
        width, height = record.fit.bucket
        latent = cached[index, True]
        assert latent.shape == (16, height // 16, width // 16) and latent.dtype == torch.float32
        assert any(
            torch.equal(latent, space.scaled(one)) for one in given.values() if one.shape == latent.shape
        )
    unscaled = cache(data, encode_widely, disk=disk, latent_space=LatentSpace(16, 16, 16))
    expected = (unscaled[0, False][5] - 5.0) * 5.5
    assert torch.equal(cached[0, False][5], expected)
