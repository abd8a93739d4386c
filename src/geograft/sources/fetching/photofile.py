"""A downloaded photo becomes a file: whole, really an image, upright where it is made smaller."""

import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from geograft.sources.fetching.download import Refusal
from geograft.tables import atomic

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
"""Only these are opened: Pillow hands others to programs outside it."""

_ORIENTATION = 0x0112
_SIDEWAYS = frozenset({5, 6, 7, 8})


@dataclass(frozen=True)
class StoredPhoto:
    """A photo's file.

    Attributes:
        width: pixels, as displayed.
        height: pixels, as displayed.
        size: bytes of the file.
    """

    width: int
    height: int
    size: int


def store_photo(content: bytes, path: Path, *, max_side: int | None, quality: int) -> StoredPhoto:
    """Write a photo as JPEG, decoded whole before.

    A JPEG that is small enough is written byte by byte as it came. Others are turned upright by their EXIF
    orientation, made smaller where a side is longer than `max_side`, and written without EXIF.

    Args:
        content: the file as it was downloaded.
        path: where it goes; whole or not at all.
        max_side: the longest side in pixels; any where None.
        quality: of the JPEG that is written, 1 to 95.

    Raises:
        Refusal: `not-an-image`, `truncated`, or `too-large` where it has too many pixels to decode.
        DiskFull: the disk filled up.
    """
    image = _decoded(content, max_side)
    if image is None:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as header:
            width, height = _displayed(header)
        return _written(content, path, width, height)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, icc_profile=image.info.get("icc_profile"))
    return _written(buffer.getvalue(), path, *image.size)


def _decoded(content: bytes, max_side: int | None) -> Image.Image | None:
    """The image to write, or None where the content is to be written as it is."""
    image = _opened(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            as_it_is = image.format in ("JPEG", "MPO") and (max_side is None or max(image.size) <= max_side)
            if max_side is not None:
                image.draft("RGB", (2 * max_side, 2 * max_side))
            image.load()
        except Exception as error:  # a damaged file raises errors of many kinds
            raise Refusal("truncated", http_status=200) from error
        if as_it_is:
            return None
        profile = image.info.get("icc_profile") if image.mode == "RGB" else None
        upright = ImageOps.exif_transpose(image).convert("RGB")
    if max_side is not None:
        upright.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    upright.info = {"icc_profile": profile} if profile else {}
    return upright


def _opened(content: bytes) -> Image.Image:
    """An image whose header was read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Image.open(io.BytesIO(content), formats=_FORMATS)
        except Image.DecompressionBombError as error:
            raise Refusal("too-large", http_status=200) from error
        except Exception as error:
            raise Refusal("not-an-image", http_status=200) from error


def _displayed(image: Image.Image) -> tuple[int, int]:
    """Width and height as a viewer shows an image."""
    width, height = image.size
    return (height, width) if image.getexif().get(_ORIENTATION) in _SIDEWAYS else (width, height)


def _written(content: bytes, path: Path, width: int, height: int) -> StoredPhoto:
    """Write bytes that survive a crash of the machine before anyone is told of them."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return StoredPhoto(width, height, len(content))
