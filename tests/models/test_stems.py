import pytest
import torch
from torch.nn.functional import interpolate

from geograft.models.stems import borrow_kernels, resample_kernels

KNOWN = ("red", "green", "blue")


def kernels(patch=4):
    return torch.randn(5, 3, patch, patch, generator=torch.manual_seed(0))


def test_the_same_bands_and_patch_keep_their_kernels():
    assert torch.equal(borrow_kernels(kernels(), KNOWN, KNOWN, 4), kernels())


def test_bands_in_another_order_take_their_own_kernels():
    found = borrow_kernels(kernels(), KNOWN, ("blue", "red", "green"), 4)
    assert torch.equal(found, kernels()[:, [2, 0, 1]])


def test_an_unknown_band_takes_the_mean_of_the_known_ones():
    found = borrow_kernels(kernels(), KNOWN, ("red", "nir"), 4) / 1.5
    torch.testing.assert_close(found[:, 0], kernels()[:, 0])
    torch.testing.assert_close(found[:, 1], kernels().mean(dim=1))


def test_a_grey_scene_is_answered_alike_whatever_the_number_of_bands():
    grey = torch.randn(4, 4)
    expected = (kernels() * grey).sum(dim=(1, 2, 3))
    found = borrow_kernels(kernels(), KNOWN, ("swir", "nir", "pan", "tir", "radar"), 4)
    torch.testing.assert_close((found * grey).sum(dim=(1, 2, 3)), expected, atol=1e-4, rtol=0)


def test_larger_patches_are_answered_as_the_small_ones_were():
    patch = torch.randn(1, 3, 4, 4)
    larger = interpolate(patch, (8, 8), mode="bilinear", align_corners=False, antialias=True)
    expected = (kernels() * patch).sum(dim=(1, 2, 3))
    torch.testing.assert_close(
        (resample_kernels(kernels(), 8) * larger).sum(dim=(1, 2, 3)), expected, atol=1e-4, rtol=0
    )


def test_smaller_patches_are_answered_as_well_as_can_be():
    """A smooth patch loses little when it shrinks, so its answer stays close."""
    ramp = torch.linspace(-1, 1, 8)
    patch = (ramp[:, None] + ramp[None]).expand(1, 3, 8, 8)
    smooth = torch.ones(5, 3, 8, 8) * torch.randn(5, 3, 1, 1) * patch
    smaller = interpolate(patch, (4, 4), mode="bilinear", align_corners=False, antialias=True)
    expected = (smooth * patch).sum(dim=(1, 2, 3))
    found = (borrow_kernels(smooth, KNOWN, KNOWN, 4) * smaller).sum(dim=(1, 2, 3))
    torch.testing.assert_close(found, expected, rtol=0.15, atol=0.1)


@pytest.mark.parametrize("patch", [2, 4, 7])
def test_shapes_are_those_of_the_new_sensor(patch):
    assert borrow_kernels(kernels(), KNOWN, ("a", "red"), patch).shape == (5, 2, patch, patch)
