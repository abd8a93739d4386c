"""Rasters in and out: scenes read onto any grid with their mask, UTM grids, XYZ tiles, Cloud-optimised GeoTIFFs."""

from geograft.raster.clouds import cloud_mask_path, cloud_share
from geograft.raster.cog import write_cog
from geograft.raster.globe import footprint
from geograft.raster.grids import chip_geobox, ground_gsd, utm_epsg, utm_epsgs, utm_geobox
from geograft.raster.reading import Raster, read
from geograft.raster.scene import Scene, open_assets, open_scene

__all__ = [
    "Raster",
    "Scene",
    "chip_geobox",
    "cloud_mask_path",
    "cloud_share",
    "footprint",
    "ground_gsd",
    "open_assets",
    "open_scene",
    "read",
    "utm_epsg",
    "utm_epsgs",
    "utm_geobox",
    "write_cog",
]
