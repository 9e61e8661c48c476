import pytest
import torch

from library.data.cache import cache_latents
from library.data.dataset import View, to_pixels
from library.problems import UserError


def encode(pixels, noise):
    """A stand-in for a VAE: every latent knows its own image and noise, and nothing of its batch."""
    small = torch.nn.functional.avg_pool2d(pixels, 8)
    return torch.cat([small, small[:, :1]], dim=1) * 0.5 + noise


@pytest.fixture
def data(save_image, scan):
    for index, size in enumerate([(64, 64), (96, 64), (64, 64), (100, 70), (65, 64)]):
        save_image(f"train/2_x/{index}.png", size)
    return scan(enable_bucket=True, min_bucket_reso=32, bucket_reso_steps=32, flip_aug=True)


def test_every_image_and_its_mirror_image_is_encoded_whatever_the_batch_size(data):
    calls = []

    def counted(pixels, noise):
        calls.append(len(pixels))
        return encode(pixels, noise)

    one = cache_latents(data, counted, batch_size=1, seed=3, progress=False)
    assert calls == [1] * 10
    four = cache_latents(data, counted, batch_size=4, seed=3, progress=False)
    assert len(calls) - 10 <= 4
    assert len(one) == len(four) == 10
    for index, record in enumerate(data.records):
        width, height = record.fit.bucket
        for is_flipped in (False, True):
            latent = one[index, is_flipped]
            assert latent.shape == (4, height // 8, width // 8) and latent.dtype == torch.float32
            assert torch.equal(latent, four[index, is_flipped])


def test_a_latent_is_made_from_the_centre_crop(data):
    noiseless = cache_latents(
        data, lambda pixels, noise: encode(pixels, noise * 0), batch_size=2, seed=0, progress=False
    )
    for index, record in enumerate(data.records):
        fit = record.fit
        crop = (fit.resized[0] - fit.bucket[0]) // 2, (fit.resized[1] - fit.bucket[1]) // 2
        for is_flipped in (False, True):
            pixels = to_pixels([View(index, record, crop, is_flipped).load()])
            expected = encode(pixels, torch.zeros(1, 4, *[side // 8 for side in reversed(fit.bucket)]))[0]
            assert torch.equal(noiseless[index, is_flipped], expected)


def test_mirror_images_are_not_encoded_without_flip_aug(save_image, scan):
    save_image("train/1_x/a.png")
    cache = cache_latents(scan(), encode, batch_size=1, seed=0, progress=False)
    assert len(cache) == 1 and cache[0, False].shape == (4, 8, 8)


def test_half_precision_latents_are_kept_as_float32_that_own_their_memory(data):
    cache = cache_latents(
        data, lambda pixels, noise: encode(pixels, noise).half(), batch_size=4, seed=0, progress=False
    )
    for latent in cache.latents.values():
        assert latent.dtype == torch.float32
        assert latent.untyped_storage().nbytes() == latent.numel() * 4


def test_all_images_that_cannot_be_decoded_are_found_in_one_pass(data, tmp_path):
    for name in ("0.png", "3.png"):
        path = tmp_path / "train" / "2_x" / name
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError) as caught:
        cache_latents(data, encode, batch_size=2, seed=0, progress=False)
    names = sorted(problem.where.rsplit("/")[-1] for problem in caught.value.problems)
    assert names == ["0.png", "3.png"]


def test_a_latent_that_is_not_finite_names_its_image(data):
    def broken(pixels, noise):
        latents = encode(pixels, noise)
        latents[pixels.shape[0] - 1, 0, 0, 0] = float("nan")
        return latents

    with pytest.raises(UserError) as caught:
        cache_latents(data, broken, batch_size=100, seed=0, progress=False)
    assert "the VAE gives NaN or infinite latents for it" in str(caught.value)


def test_the_progress_bar_counts_images(data, capsys):
    cache_latents(data, encode, batch_size=2, seed=0)
    assert "5/5" in capsys.readouterr().err
