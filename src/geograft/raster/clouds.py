"""Clouds of a scene or of any part of it, by the mask that lies beside it or that its STAC item names."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from geograft.raster.files import with_file
from geograft.raster.reading import read_grid
from geograft.raster.remote import is_remote
from geograft.raster.scene import Scene

_SUFFIX = "_clouds"


def cloud_share(scene: Scene, geobox: GeoBox) -> float:
    """The share of a grid that clouds cover, 0 to 1, of what the mask knows of the grid.

    The mask is the scene's `mask_uri`: a classification or quality band that the sensor's `mask` explains; or else
    the sibling file `<stem>_clouds.tif` (uint8, 1 = cloud) of a local scene. Without one the share is 0.

    Raises:
        UnreadableScene: the mask is damaged or gone, or its server refuses, fails or does not answer.
    """
    mask = mask_of(scene)
    if mask is None:
        return 0.0
    work = partial(read_grid, bands=(1,), geobox=geobox, nodata=None, resampling=Resampling.nearest)
    values, valid = with_file(mask, work, signer=scene.signer)
    return share(scene, mask, values[0], valid)


def share(scene: Scene, mask: str, values: NDArray[Any], valid: NDArray[np.bool_]) -> float:
    """The share of a mask's valid values that is cloud, 0 to 1; fill of a quality band and class 0 are not valid."""
    if explained(scene, mask) and scene.sensor.mask is not None:
        filled = values == 0 if scene.sensor.mask.classes else (values.astype(np.int64) & 1) == 1
        cloudy, valid = scene.sensor.mask.cloudy(values) & ~filled, valid & ~filled
    else:
        cloudy = values == 1
    return float((cloudy & valid).sum() / max(1, valid.sum()))


def explained(scene: Scene, mask: str) -> bool:
    """Whether the sensor explains a mask's values; a `_clouds` file explains itself."""
    return scene.sensor.mask is not None and not Path(mask).stem.endswith(_SUFFIX)


def mask_of(scene: Scene) -> str | None:
    """Where a scene's cloud mask lies, or None; no server is asked for one that nobody named."""
    if scene.mask_uri is not None:
        return scene.mask_uri
    if scene.kind != "file" or is_remote(scene.path):
        return None
    path = cloud_mask_path(scene.path)
    return str(path) if path.is_file() else None


def cloud_mask_path(path: str | Path) -> Path:
    """Where the cloud mask of a scene lies, if it has one."""
    path = Path(path)
    return path.with_name(f"{path.stem}{_SUFFIX}.tif")
