import json

import numpy as np
import pytest
from PIL import Image

from geograft.errors import BadSetting, UnreadableTable
from geograft.pairs.encoding import check_encoding, decode, encode
from geograft.sensors import get_sensor


def about(pixels, encoding):
    return {"shape": json.dumps(pixels.shape), "dtype": pixels.dtype.name, "encoding": encoding}


def smooth(bands, size=32):
    """Bands that JPEG can hold well."""
    rows, columns = np.mgrid[:size, :size]
    return np.stack([(2 * rows + 3 * columns + 20 * band) % 250 for band in range(bands)]).astype(np.uint8)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int16"])
def test_lossless_pixels_keep_every_bit(dtype):
    pixels = (np.random.default_rng(0).normal(100, 40, (5, 9, 9))).astype(dtype)
    content = encode(pixels, "lossless")
    assert len(content) == pixels.nbytes
    assert (np.frombuffer(content, dtype).reshape(pixels.shape) == pixels).all()
    found = decode(content, about(pixels, "lossless"))
    assert found.dtype == pixels.dtype
    assert (found == pixels).all()


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 7])
def test_a_jpeg_keeps_bands_apart_and_values_close(bands):
    pixels = smooth(bands)
    content = encode(pixels, "jpeg")
    found = decode(content, about(pixels, "jpeg"))
    assert found.shape == pixels.shape
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - pixels).mean() < 3
    assert content == encode(pixels, "jpeg")


def test_three_bands_are_an_ordinary_colour_picture(tmp_path):
    pixels = np.zeros((3, 16, 16), np.uint8)
    pixels[0] = 200
    (tmp_path / "chip.jpg").write_bytes(encode(pixels, "jpeg"))
    with Image.open(tmp_path / "chip.jpg") as picture:
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (16, 16))
        assert np.abs(np.array(picture.getpixel((8, 8))) - (200, 0, 0)).max() <= 2
    (tmp_path / "four.jpg").write_bytes(encode(smooth(4), "jpeg"))
    with Image.open(tmp_path / "four.jpg") as picture:
        assert (picture.mode, picture.size) == ("L", (32, 128))


def test_a_jpeg_of_other_values_than_bytes_is_refused():
    with pytest.raises(BadSetting, match="lossless"):
        check_encoding("jpeg", get_sensor("world-10m"), 64)
    with pytest.raises(BadSetting, match="lossless"):
        check_encoding("jpeg", get_sensor("world-1m"), 20_000)
    with pytest.raises(BadSetting, match="png"):
        check_encoding("png", get_sensor("world-1m"), 64)
    check_encoding("jpeg", get_sensor("world-1m"), 224)
    check_encoding("lossless", get_sensor("world-10m"), 224)


@pytest.mark.parametrize("encoding", ["lossless", "jpeg"])
def test_damaged_pixels_are_named(encoding):
    pixels = smooth(3)
    with pytest.raises(UnreadableTable, match="cut them again"):
        decode(encode(pixels, encoding)[:50], about(pixels, encoding))
