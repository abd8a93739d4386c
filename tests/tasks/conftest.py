"""Small random models whose words are colours, and scenes painted in those colours."""

from collections.abc import Sequence
from pathlib import Path

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

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200), "grey": (120, 120, 120)}


class ColourTeacher(Teacher):
    """Knows the words of a few colours: their vectors are what the encoder says of a chip of that colour."""

    def __init__(self, encoder: SatelliteEncoder, sensor: str):
        self.name = "colours"
        self.encoder, self.sensor = encoder, get_sensor(sensor)

    @property
    def fingerprint(self):
        return "c0105c0105c0105c"

    @property
    def dim(self):
        return self.encoder.settings.dim

    def encode_photos(self, images):
        return self._vectors([tuple(np.asarray(image).reshape(-1, 3).mean(axis=0)) for image in images])

    def encode_text(self, texts: Sequence[str]):
        return self._vectors([next(c for name, c in COLOURS.items() if name in text) for text in texts])

    def _vectors(self, colours):
        size, bands = self.encoder.settings.image_size, len(self.sensor.bands)
        chips = np.stack([np.full((size, size, bands), pixel_of(colour, bands)) for colour in colours])
        pixels = torch.from_numpy(self.sensor.normalise(chips.transpose(0, 3, 1, 2)))
        with torch.inference_mode():
            return torch.nn.functional.normalize(self.encoder.tokens(pixels).mean((2, 3)), dim=1).numpy()


def pixel_of(colour, bands):
    return (*colour, *([100] * (bands - 3)))


def build_model(*, sensor="rgb", size=16, patch=4, gsd=None, seed=0, levels=("pixel",)):
    torch.manual_seed(seed)
    bands = get_sensor(sensor).bands
    settings = EncoderSettings(bands=bands, dim=24, image_size=size, patch_size=patch, width=32, depth=1, heads=2)
    encoder = SatelliteEncoder(settings).eval()
    return Model(
        dict.fromkeys(levels, encoder),
        sensor=get_sensor(sensor),
        teacher=ColourTeacher(encoder, sensor),
        gsd=gsd,
        name="random",
    )


def paint(quarters, size, *, bands=3):
    """Pixels (C, size, size) whose four quarters have the named colours, row by row."""
    half = size // 2
    pixels = np.zeros((bands, size, size), np.uint8)
    for number, name in enumerate(quarters):
        rows, columns = divmod(number, 2)
        block = np.array(pixel_of(COLOURS[name], bands), np.uint8)[:, None, None]
        pixels[:, rows * half : (rows + 1) * half, columns * half : (columns + 1) * half] = block
    return pixels


def save_scene(path: Path, pixels, *, crs="EPSG:32633", resolution=1.0, sensor="rgb", nodata=None, origin=(5e5, 5e6)):
    affine = Affine(resolution, 0, origin[0], 0, -resolution, origin[1])
    geobox = GeoBox(pixels.shape[1:], affine, crs)
    spec = get_sensor(sensor)
    write_cog(path, pixels, geobox, nodata=nodata, band_names=spec.bands, tags={"GEOGRAFT_SENSOR": sensor})
    return path


@pytest.fixture
def make_model():
    return build_model


@pytest.fixture
def model():
    return build_model()


@pytest.fixture
def make_scene(tmp_path):
    def make(quarters=("red", "green", "blue", "grey"), size=64, *, name="scene.tif", **options):
        bands = len(get_sensor(options.get("sensor", "rgb")).bands)
        return save_scene(tmp_path / name, paint(quarters, size, bands=bands), **options)

    return make


@pytest.fixture
def write_scene(tmp_path):
    return lambda name, pixels, **options: save_scene(tmp_path / name, pixels, **options)
