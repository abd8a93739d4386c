import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from geograft.sources.judging.likeness import Likeness, hash_places, image_hash, photo_hash


def picture(seed, size=(640, 480)):
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def apart(first, second):
    return (first ^ second).bit_count()


@pytest.mark.parametrize("seed", range(6))
def test_size_quality_and_brightness_change_few_bits(tmp_path, seed):
    image = picture(seed)
    image.save(tmp_path / "whole.jpg", quality=95)
    image.resize((300, 225), Image.Resampling.LANCZOS).save(tmp_path / "small.jpg", quality=40)
    ImageEnhance.Brightness(image).enhance(0.8).save(tmp_path / "dark.png")
    image.resize((1600, 1200), Image.Resampling.BICUBIC).save(tmp_path / "large.webp", quality=70)
    whole = photo_hash(tmp_path / "whole.jpg")
    others = [photo_hash(tmp_path / name) for name in ("small.jpg", "dark.png", "large.webp")]
    assert max(apart(whole, other) for other in others) <= 4


def test_different_photos_differ_in_many_bits():
    hashes = [image_hash(picture(seed)) for seed in range(20)]
    assert min(apart(a, b) for at, a in enumerate(hashes) for b in hashes[:at]) >= 14


def test_a_turned_photo_is_seen_as_it_is_displayed(tmp_path):
    image = picture(3)
    image.save(tmp_path / "upright.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    assert apart(photo_hash(tmp_path / "upright.jpg"), photo_hash(tmp_path / "turned.jpg")) <= 4


def test_plain_images_are_alike():
    assert image_hash(Image.new("RGB", (50, 40), "red")) == image_hash(Image.new("L", (200, 100), 90))


def test_what_is_no_image_has_no_hash(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>")
    assert photo_hash(tmp_path / "page.jpg") is None
    assert photo_hash(tmp_path / "absent.jpg") is None


def test_real_photos_find_their_small_copies(shared_data, tmp_path):
    paths = sorted((shared_data / "walks").rglob("*.jpg"))[:4000:100]
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            image.resize((image.width * 2 // 3, image.height * 2 // 3)).save(tmp_path / f"{number}.jpg", quality=60)
    copies = [apart(photo_hash(path), photo_hash(tmp_path / f"{number}.jpg")) for number, path in enumerate(paths)]
    assert max(copies) <= 8


def naive(values, cells, around, distance):
    """Each hash against all kept ones of its neighbourhood."""
    kept = []
    for value, cell, near in zip(values, cells, around, strict=True):
        alike = any(other_cell in near and apart(value, other) <= distance for other, other_cell in kept)
        if not alike:
            kept.append((value, cell))
        yield alike


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 63), st.floats(-0.03, 0.03), st.floats(-0.03, 0.03)), max_size=40
    ),
    st.integers(0, 20),
)
def test_near_duplicates_are_those_of_a_naive_loop(rows, distance):
    bases = [0, 2**64 - 1, 0x123456789ABCDEF0, 0x0F0F0F0F0F0F0F0F]
    values = [bases[base] ^ (1 << bit) for base, bit, _, _ in rows]
    cells, around = hash_places([10 + east for *_, east, _ in rows], [50 + north for *_, north in rows])
    found, index = [], Likeness(distance)
    for value, cell, near in zip(values, cells.tolist(), around, strict=True):
        found.append(index.alike(value, near))
        if not found[-1]:
            index.add(value, cell)
    assert found == list(naive(values, cells.tolist(), around.tolist(), distance))
