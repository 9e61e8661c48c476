import numpy as np
import torch

from library.data.pictures.masks import latent_mask, mask_from_alpha, mask_from_hint


def test_the_mask_of_a_hint_is_its_red_channel():
    mask = mask_from_hint(np.array([[[255, 0, 9], [51, 255, 9]]], np.uint8))
    assert mask.dtype == np.float32
    assert mask.tolist() == [[1.0, np.float32(0.2)]]


def test_the_mask_of_alpha_is_its_share_of_opaque():
    mask = mask_from_alpha(np.array([[0, 51, 255]], np.uint8))
    assert mask.dtype == np.float32
    assert mask.tolist() == [[0.0, np.float32(0.2), 1.0]]


def test_a_latent_mask_is_the_mean_of_eight_by_eight_pixels():
    mask = np.random.default_rng(0).random((48, 64), np.float32)
    small = latent_mask(mask, (6, 8))
    area = torch.nn.functional.interpolate(torch.from_numpy(mask)[None, None], size=(6, 8), mode="area")
    assert small.dtype == np.float32
    assert np.allclose(small, area[0, 0].numpy(), atol=1e-6)
    assert np.allclose(small, mask.reshape(6, 8, 8, 8).mean((1, 3)), atol=1e-6)
