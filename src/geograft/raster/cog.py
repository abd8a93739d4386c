"""Cloud-optimised GeoTIFFs out: zstd, 256 px blocks, overviews, colours and category names that QGIS shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile

from geograft.errors import BadSetting
from geograft.tables import atomic

Colour = tuple[int, int, int]

_COLOURS = {"red": ColorInterp.red, "green": ColorInterp.green, "blue": ColorInterp.blue}


@dataclass(frozen=True)
class _Bands:
    """What is said of the bands in the file."""

    names: Sequence[str] | None = None
    colours: Mapping[int, Colour] | None = None
    categories: Mapping[int, str] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    scale: float | None = None
    offset: float | None = None

    @property
    def classes(self) -> bool:
        """Whether the values are class ids, which no average of overviews may mix."""
        return self.colours is not None or self.categories is not None


def write_cog(  # noqa: PLR0913
    path: str | Path,
    array: NDArray[Any],
    geobox: GeoBox,
    *,
    nodata: float | None = None,
    band_names: Sequence[str] | None = None,
    colours: Mapping[int, Colour] | None = None,
    categories: Mapping[int, str] | None = None,
    tags: Mapping[str, str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
) -> Path:
    """Write an array as a cloud-optimised GeoTIFF, whole or not at all.

    Args:
        path: the .tif to write.
        array: (C, H, W) or (H, W).
        geobox: where it lies; its shape must be (H, W).
        nodata: the value that means no data.
        band_names: band descriptions; red, green and blue are marked as such.
        colours: class id to (R, G, B): a colour table; uint8 or uint16 of one band.
        categories: class id to name; written beside the file as `.tif.aux.xml`, where GDAL and QGIS look.
        tags: metadata of the file; `GEOGRAFT_SENSOR` names the sensor, `TIFFTAG_DATETIME` the time
            (`YYYY:MM:DD HH:MM:SS`, UTC).
        scale: physical units per DN, for every band.
        offset: physical value of DN 0, for every band.

    Returns:
        The path written.

    Raises:
        BadSetting: array, geobox, names or colours do not fit each other.
        DiskFull: the disk filled up; nothing was left behind.
    """
    bands = array[None] if array.ndim == 2 else array
    about = _Bands(band_names, colours, categories, tags or {}, scale, offset)
    _check(bands, geobox, about)
    path = Path(path)
    with MemoryFile(ext=".tif") as memory:  # GDAL does not say that a disk is full; writing bytes does
        with memory.open(**_profile(bands, geobox, nodata, classes=about.classes)) as file:
            file.write(bands)
            _describe(file, about)
        with atomic(path) as temporary:
            temporary.write_bytes(memory.getbuffer())
            _write_categories(path, categories, bands.shape[0])
    return path


def _check(bands: NDArray[Any], geobox: GeoBox, about: _Bands) -> None:
    """Refuse what cannot be written together."""
    if bands.ndim != 3 or bands.shape[1:] != tuple(geobox.shape):
        raise BadSetting(f"An array of shape {bands.shape} does not fit a grid of {tuple(geobox.shape)} pixels.")
    if about.names is not None and len(about.names) != len(bands):
        raise BadSetting(f"{len(bands)} bands need {len(bands)} names, not {len(about.names)}.")
    if about.colours is not None and (len(bands) != 1 or bands.dtype not in (np.uint8, np.uint16)):
        raise BadSetting("A colour table needs one band of uint8 or uint16.")


def _profile(bands: NDArray[Any], geobox: GeoBox, nodata: float | None, *, classes: bool) -> dict[str, Any]:
    """The creation options of rasterio and GDAL's COG driver."""
    return {
        "driver": "COG",
        "count": bands.shape[0],
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype.name,
        "crs": geobox.crs.to_wkt(),
        "transform": geobox.affine,
        "nodata": nodata,
        "compress": "ZSTD",
        "level": 6,
        "predictor": "NO" if classes else "YES",
        "blocksize": 256,
        "overviews": "AUTO",
        "overview_resampling": "MODE" if classes else "AVERAGE",
        "bigtiff": "IF_SAFER",
    }


def _describe(file: Any, about: _Bands) -> None:
    """Write names, colours, tags, scale and offset of an open file's bands."""
    if about.names is not None:
        file.descriptions = tuple(about.names)
        if {"red", "green", "blue"} <= set(about.names):
            file.colorinterp = [_COLOURS.get(name, ColorInterp.undefined) for name in about.names]
    if about.colours is not None:
        file.write_colormap(1, {value: (*colour, 255) for value, colour in about.colours.items()})
    if about.scale is not None:
        file.scales = (about.scale,) * file.count
    if about.offset is not None:
        file.offsets = (about.offset,) * file.count
    file.update_tags(**about.tags)


def _write_categories(path: Path, categories: Mapping[int, str] | None, count: int) -> None:
    """Write category names as GDAL's side file, or remove one of an earlier file of that name."""
    side = path.with_name(path.name + ".aux.xml")
    if categories is None:
        side.unlink(missing_ok=True)
        return
    names = [categories.get(value, "") for value in range(max(categories) + 1)]
    lines = "".join(f"      <Category>{escape(name)}</Category>\n" for name in names)
    band = '  <PAMRasterBand band="{}">\n    <CategoryNames>\n{}    </CategoryNames>\n  </PAMRasterBand>\n'
    text = "".join(band.format(index, lines) for index in range(1, count + 1))
    with atomic(side) as temporary:
        temporary.write_text(f"<PAMDataset>\n{text}</PAMDataset>\n", encoding="utf-8")
