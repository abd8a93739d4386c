"""A region whose pixels say their class, small random models, and methods that know everything or nothing."""

import json

import numpy as np
import pytest
import torch
from affine import Affine
from odc.geo.geobox import GeoBox

from geograft.models.model import Model
from geograft.models.satellite import EncoderSettings, SatelliteEncoder
from geograft.models.teacher import Teacher
from geograft.raster import write_cog
from geograft.sensors import get_sensor
from geograft.world.classes import CLASSES

COUNT = len(CLASSES)


class GuessingTeacher(Teacher):
    """Gives every text and every photo a vector of its own that means nothing."""

    name = "guessing"
    fingerprint = "0000000000000000"
    dim = 16

    def encode_photos(self, images):
        return self._vectors(image.tobytes() for image in images)

    def encode_text(self, texts):
        return self._vectors(text.encode() for text in texts)

    def _vectors(self, contents):
        rows = [np.random.default_rng(list(content[:64])).normal(size=self.dim) for content in contents]
        vectors = np.asarray(rows, np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def make_region_folder(tmp_path):
    """A factory of regions of square patches of all classes; the red band is ten times the class id."""

    def make(seed=301, *, size=512, patch=32, folder=None):
        out = folder or tmp_path / "work" / "regions" / str(seed)
        draw = np.random.default_rng(seed)
        cover = draw.integers(1, COUNT + 1, (size // patch, size // patch)).astype(np.uint8)
        cover = cover.repeat(patch, axis=0).repeat(patch, axis=1)
        grid = GeoBox(cover.shape, Affine(1, 0, 5e5, 0, -1, 5e6), "EPSG:32631")
        pixels = np.stack([cover * 10, *[np.full_like(cover, 90)] * 3])
        write_cog(out / "scenes" / "world-1m_2022-06-24.tif", pixels, grid, band_names=get_sensor("world-1m").bands)
        write_cog(out / "truth" / "classes.tif", cover, grid, nodata=0)
        (out / "region.json").write_text(json.dumps({"summary": {"seed": seed, "size": size}}))
        return out

    return make


@pytest.fixture
def make_model():
    """A factory of random models of the 1 m sensor for chips of 32 px."""

    def make(levels=("image", "pixel"), seed=0):
        torch.manual_seed(seed)
        bands = get_sensor("world-1m").bands
        shape = EncoderSettings(bands=bands, dim=16, image_size=32, patch_size=8, width=32, depth=1, heads=2)
        encoders = {level: SatelliteEncoder(shape).eval() for level in levels}
        return Model(encoders, sensor=get_sensor("world-1m"), teacher=GuessingTeacher(), name="random")

    return make
