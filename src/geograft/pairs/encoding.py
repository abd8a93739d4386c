"""A chip's pixels as bytes, and back: as they are, or as a JPEG.

`lossless` is the C-order bytes of the native values, (C, S, S); Parquet compresses them. `jpeg` (quality 95, colours
not subsampled) is for uint8: three bands are an ordinary colour picture, in the sensor's band order; any other number
of bands is one grey picture, (C * S, S), with the bands below each other.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geograft.errors import BadSetting, UnreadableTable
from geograft.sensors import Sensor

ENCODINGS = ("lossless", "jpeg")
QUALITY = 95
TALLEST = 65_500
"""Rows of the largest JPEG."""


def check_encoding(encoding: str, sensor: Sensor, size: int) -> None:
    """Refuse an encoding that cannot hold a sensor's chips.

    Args:
        encoding: one of `ENCODINGS`.
        sensor: of the chips.
        size: pixels along a chip's side.

    Raises:
        BadSetting: it is no encoding, or JPEG is asked for other values than uint8, or for too large chips.
    """
    if encoding not in ENCODINGS:
        raise BadSetting(f"No encoding is called {encoding!r}: use {' or '.join(ENCODINGS)}.")
    if encoding == "lossless":
        return
    if sensor.dtype != "uint8":
        raise BadSetting(f"A JPEG holds uint8, and {sensor.name} has {sensor.dtype}: use the encoding lossless.")
    if len(sensor.bands) * size > TALLEST:
        raise BadSetting(f"{len(sensor.bands)} bands of {size} px do not fit a JPEG: use the encoding lossless.")


def encode(pixels: NDArray[Any], encoding: str) -> bytes:
    """The bytes of a chip's pixels, (C, S, S)."""
    if encoding == "lossless":
        return np.ascontiguousarray(pixels).tobytes()
    colour = len(pixels) == 3
    flat = np.ascontiguousarray(pixels.transpose(1, 2, 0)) if colour else pixels.reshape(-1, pixels.shape[-1])
    content = io.BytesIO()
    Image.fromarray(flat).save(content, "JPEG", quality=QUALITY, subsampling=0)
    return content.getvalue()


def decode(content: bytes | memoryview, about: Mapping[str, str]) -> NDArray[Any]:
    """The pixels of a chip, (C, S, S) of the native data type.

    Args:
        content: what `encode` gave.
        about: the shard's metadata: shape, dtype, encoding.

    Raises:
        UnreadableTable: the bytes are not those of a chip.
    """
    shape = tuple(json.loads(about["shape"]))
    try:
        flat = _values(content, about)
        pixels = flat.transpose(2, 0, 1) if flat.ndim == 3 else flat.reshape(shape)
    except (OSError, ValueError) as error:
        raise UnreadableTable(f"The pixels of a chip are damaged ({error}): cut them again.") from error
    return np.ascontiguousarray(pixels)


def _values(content: bytes | memoryview, about: Mapping[str, str]) -> NDArray[Any]:
    """The values as they are stored: a flat array, or a picture."""
    if about.get("encoding", "lossless") == "lossless":
        return np.frombuffer(content, np.dtype(about["dtype"]))
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture)
