"""Rasters in and out: scenes read onto any grid with their mask, UTM grids, XYZ tiles, Cloud-optimised GeoTIFFs."""

from geograft.raster.cog import write_cog
from geograft.raster.grids import chip_geobox, ground_gsd, utm_epsg, utm_epsgs, utm_geobox
from geograft.raster.reading import Raster, Scene, cloud_mask_path, cloud_share, open_scene, read

__all__ = [
    "Raster",
    "Scene",
    "chip_geobox",
    "cloud_mask_path",
    "cloud_share",
    "ground_gsd",
    "open_scene",
    "read",
    "utm_epsg",
    "utm_epsgs",
    "utm_geobox",
    "write_cog",
]
