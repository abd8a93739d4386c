"""What a photo file says about itself: where, when, which way, and whether the file is whole.

Nothing is guessed: a position without a hemisphere is broken, a heading that is no number is absent. A photo whose
pixels or position cannot be used carries a reason instead of raising.
"""

import errno
import functools
import hashlib
import io
import math
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

_GPS, _EXIF = 0x8825, 0x8769
_ORIENTATION, _ARTIST, _COPYRIGHT = 0x0112, 0x013B, 0x8298
_TAKEN, _ZONE, _FOCAL_35MM = 0x9003, 0x9011, 0xA405
_LAT_REF, _LAT, _LON_REF, _LON, _TIME, _HEADING, _DAY, _ERROR = 1, 2, 3, 4, 7, 17, 29, 31

_DIAGONAL_35MM = math.hypot(36, 24)
_BROKEN = (
    ArithmeticError,
    AttributeError,
    IndexError,
    KeyError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)
"""What Pillow and arithmetic raise on the broken tags that cameras and editors write."""

_HEIF = frozenset(b"ftyp" + kind for kind in (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"))
"""What stands at byte 4 of a HEIF file."""


@dataclass(frozen=True)
class PhotoExif:
    """What one photo file says about itself.

    Attributes:
        lon: degrees east, or None.
        lat: degrees north, or None.
        accuracy_m: the position's error in metres (GPSHPositioningError), or None.
        heading_deg: the direction of view, 0 to 360 clockwise from north (true or magnetic, as the camera
            wrote), or None.
        fov_deg: the horizontal field of view (from the 35 mm equivalent focal length), or None.
        taken: when (UTC: by offset or GPS time where stated, else the camera's clock as if it were UTC), or None.
        user: the artist tag, or None.
        licence: the copyright tag, or None.
        width: pixels, as displayed.
        height: pixels, as displayed.
        digest: hash of the file's bytes.
        image_problem: why the pixels cannot be used: `missing-file`, `unreadable-file` (there, but the system does not
            let it be read), `unreadable-image`, `truncated-image`, `needs-heif` (pillow-heif is not installed).
        position_problem: why there is no position: `no-gps`, `broken-exif`, `out-of-range`, `null-island`.
    """

    lon: float | None = None
    lat: float | None = None
    accuracy_m: float | None = None
    heading_deg: float | None = None
    fov_deg: float | None = None
    taken: datetime | None = None
    user: str | None = None
    licence: str | None = None
    width: int | None = None
    height: int | None = None
    digest: str | None = None
    image_problem: str | None = None
    position_problem: str | None = None

    @property
    def reason(self) -> str | None:
        """Why the photo cannot be used on its own, or None where it can."""
        return self.image_problem or self.position_problem


def read_exif(path: str | Path, *, verify: bool = False) -> PhotoExif:
    """Read a photo file's own words.

    A JPEG or PNG that was cut short is told by its missing end marker, without decoding.

    Args:
        path: the photo.
        verify: decode the whole image too, which finds damage inside.

    Returns:
        What it says; `reason` tells why it cannot be used. Nothing is raised.
    """
    try:
        content = Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):  # ValueError: a NUL byte in the path
        return PhotoExif(image_problem="missing-file", position_problem="no-gps")
    except OSError as error:
        problem = "missing-file" if error.errno == errno.ENAMETOOLONG else "unreadable-file"
        return PhotoExif(image_problem=problem, position_problem="no-gps")
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    if content[4:12] in _HEIF and not _reads_heif():
        return PhotoExif(digest=digest, image_problem="needs-heif", position_problem="no-gps")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as image:
                found = _read_image(image, content, verify=verify)
    except _BROKEN:
        found = PhotoExif(image_problem="unreadable-image", position_problem="no-gps")
    return replace(found, digest=digest)


@functools.cache
def _reads_heif() -> bool:
    """Whether HEIF can be read; tells Pillow how, once."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def position_problem(lon: float, lat: float) -> str | None:
    """Why a position is none: `out-of-range`, `swapped-lat-lon`, `null-island`; None where it is one."""
    if not (math.isfinite(lon) and math.isfinite(lat)):
        return "no-gps"
    if abs(lat) > 90 and abs(lat) <= 180 and abs(lon) <= 90:
        return "swapped-lat-lon"
    if abs(lat) > 90 or abs(lon) > 180:
        return "out-of-range"
    return "null-island" if abs(lon) < 1e-4 and abs(lat) < 1e-4 else None


# --- the image --------------------------------------------------------------------------------------------


def _read_image(image: Any, content: bytes, *, verify: bool) -> PhotoExif:
    """The tags and size of an opened image."""
    problem = None if _is_whole(image.format, content) else "truncated-image"
    if verify and problem is None:
        problem = _decode(image)
    width, height = image.size
    try:
        tags = image.getexif()
        camera, gps = tags.get_ifd(_EXIF), tags.get_ifd(_GPS)
        turned = tags.get(_ORIENTATION) in {5, 6, 7, 8}
    except _BROKEN:
        return PhotoExif(width=width, height=height, image_problem=problem, position_problem="broken-exif")
    if turned:
        width, height = height, width
    size = PhotoExif(width=width, height=height, image_problem=problem)
    return _with_position(_with_camera(size, tags, camera, gps), gps)


def _is_whole(form: str | None, content: bytes) -> bool:
    """Whether a JPEG or PNG has its end marker; other formats are believed."""
    if form in {"JPEG", "MPO"}:
        scan = _start_of_scan(content)
        return scan is not None and content.rfind(b"\xff\xd9") > scan
    if form == "PNG":
        return b"IEND" in content[-64:]
    return True


def _start_of_scan(content: bytes) -> int | None:
    """Where a JPEG's pixels begin, so that the thumbnail's end marker is not taken for the photo's."""
    place = 2
    while place + 4 <= len(content):
        if content[place] != 0xFF:
            return None
        marker = content[place + 1]
        if marker == 0xDA:
            return place
        stands_alone = marker in {0x01, 0xFF} or 0xD0 <= marker <= 0xD8
        place += (1 if marker == 0xFF else 2) if stands_alone else 2 + int.from_bytes(content[place + 2 : place + 4])
    return None


def _decode(image: Any) -> str | None:
    """Decode all pixels: `unreadable-image` where that fails."""
    try:
        image.load()
    except _BROKEN:
        return "unreadable-image"
    return None


# --- tags -------------------------------------------------------------------------------------------------


def _with_camera(
    found: PhotoExif, tags: Mapping[int, Any], camera: Mapping[int, Any], gps: Mapping[int, Any]
) -> PhotoExif:
    """Add time, direction, field of view, artist and copyright; a broken tag is absent."""
    heading, accuracy = _number(gps.get(_HEADING)), _number(gps.get(_ERROR))
    return replace(
        found,
        taken=_time(camera, gps),
        heading_deg=heading % 360 if heading is not None and 0 <= heading <= 360 else None,
        accuracy_m=accuracy if accuracy is not None and accuracy > 0 else None,
        fov_deg=_field_of_view(_number(camera.get(_FOCAL_35MM)), found.width or 0, found.height or 0),
        user=_text(tags.get(_ARTIST)),
        licence=_text(tags.get(_COPYRIGHT)),
    )


def _with_position(found: PhotoExif, gps: Mapping[int, Any]) -> PhotoExif:
    """Add the position, or the reason why there is none."""
    if _LAT not in gps or _LON not in gps:
        return replace(found, position_problem="no-gps")
    try:
        lat = _degrees(gps[_LAT]) * _hemisphere(gps.get(_LAT_REF), "NS")
        lon = _degrees(gps[_LON]) * _hemisphere(gps.get(_LON_REF), "EW")
    except _BROKEN:
        return replace(found, position_problem="broken-exif")
    problem = position_problem(lon, lat)
    if problem is not None:
        return replace(found, position_problem=problem)
    return replace(found, lon=lon, lat=lat)


def _degrees(value: Any) -> float:
    """Degrees of one to three rationals: degrees, minutes, seconds.

    Raises:
        ValueError: they are no angle.
    """
    parts = [float(part) for part in value] if isinstance(value, (tuple, list)) else [float(value)]
    if not 1 <= len(parts) <= 3 or not all(math.isfinite(part) for part in parts):
        raise ValueError(value)
    if any(part < 0 or part > 60 for part in parts[1:]):
        raise ValueError(value)
    return sum(abs(part) / (1, 60, 3600)[power] for power, part in enumerate(parts))


def _hemisphere(value: Any, letters: str) -> int:
    """1 for the first letter (north, east), -1 for the second.

    Raises:
        ValueError: it is neither; a position without a hemisphere is one of two places.
    """
    letter = (_text(value) or "?")[0].upper()
    if letter not in letters:
        raise ValueError(value)
    return 1 if letter == letters[0] else -1


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        number = float(value)
    except _BROKEN:
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> str | None:
    """Text without padding, or None where nothing is left."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    text = str(value if value is not None else "").strip(" \0\t\r\n")
    return text or None


def _field_of_view(focal: float | None, width: int, height: int) -> float | None:
    """Horizontal field of view in degrees of a 35 mm equivalent focal length (by the diagonal, as CIPA defines it)."""
    diagonal = math.hypot(width, height)
    if not focal or focal < 1 or not diagonal:
        return None
    return math.degrees(2 * math.atan(_DIAGONAL_35MM * width / diagonal / (2 * focal)))


def _time(camera: Mapping[int, Any], gps: Mapping[int, Any]) -> datetime | None:
    """When the photo was taken: camera time with its offset, GPS time, or camera time taken as UTC."""
    zone = (_text(camera.get(_ZONE)) or "").replace(" ", "")
    local = _text(camera.get(_TAKEN))
    aware = _parse(f"{local}{zone}", "%Y:%m:%d %H:%M:%S%z") if local and zone else None
    return aware or _gps_time(gps) or _parse(local or "", "%Y:%m:%d %H:%M:%S")


def _gps_time(gps: Mapping[int, Any]) -> datetime | None:
    """The time of the satellites (UTC), or None."""
    try:
        hour, minute, second = (int(float(part)) for part in gps[_TIME])
    except _BROKEN:
        return None
    return _parse(f"{_text(gps.get(_DAY))} {hour:02}:{minute:02}:{second:02}", "%Y:%m:%d %H:%M:%S")


def _parse(text: str, form: str) -> datetime | None:
    """A time of a form, UTC, or None."""
    try:
        found = datetime.strptime(text, form)  # noqa: DTZ007
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
