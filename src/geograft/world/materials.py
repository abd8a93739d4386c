"""What surfaces are made of: reflectance from above in summer and winter, colour from the ground, texture.

One byte a pixel names the material; both views of the world look its colour up here, so that a photo and a scene
of one place agree. Several classes share materials on purpose (asphalt is road, runway and car park; sand is beach
and bunker), so that form and context matter as they do in real imagery.
"""

from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SUMMER_DAY = 172
"""Day of the year at which the summer palette holds in full; the winter palette holds half a year later."""


@dataclass(frozen=True)
class Material:
    """One kind of surface.

    Attributes:
        name: its name.
        summer: reflectance from above, (red, green, blue, near infrared, short-wave infrared), 0..1.
        winter: the same in winter.
        side: colour (red, green, blue), 0..1, of the vertical side that a walker sees (facade, trunk).
        grain: relative amplitude of the texture from pixel to pixel.
        mottle: relative amplitude of the texture over a few metres.
        drift: relative amplitude of the texture over tens of metres.
    """

    name: str
    summer: tuple[float, ...]
    winter: tuple[float, ...]
    side: tuple[float, float, float]
    grain: float = 0.05
    mottle: float = 0.03
    drift: float = 0.03


def _hard(name: str, top: tuple[float, ...], side: tuple[float, float, float], grain: float = 0.04) -> Material:
    return Material(name, top, top, side, grain, grain * 0.8, 0.03)


def _leaf(
    name: str, summer: tuple[float, ...], winter: tuple[float, ...], side: tuple[float, float, float]
) -> Material:
    return Material(name, summer, winter, side, 0.13, 0.08, 0.06)


def _crop(
    name: str, summer: tuple[float, ...], winter: tuple[float, ...], side: tuple[float, float, float]
) -> Material:
    return Material(name, summer, winter, side, 0.06, 0.05, 0.09)


_CREAM = (0.80, 0.73, 0.60)
_TRUNK = (0.20, 0.19, 0.12)

MATERIALS: tuple[Material, ...] = (
    _hard("void", (0.0, 0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    Material(
        "deep water",
        (0.022, 0.038, 0.052, 0.014, 0.006),
        (0.026, 0.036, 0.044, 0.014, 0.006),
        (0.08, 0.16, 0.24),
        0.07,
        0.05,
        0.08,
    ),
    Material(
        "shallow water",
        (0.050, 0.082, 0.086, 0.026, 0.010),
        (0.055, 0.076, 0.078, 0.026, 0.010),
        (0.12, 0.24, 0.28),
        0.07,
        0.05,
        0.06,
    ),
    Material(
        "river water",
        (0.044, 0.060, 0.050, 0.022, 0.010),
        (0.056, 0.062, 0.050, 0.026, 0.012),
        (0.13, 0.19, 0.17),
        0.08,
        0.06,
        0.08,
    ),
    Material(
        "sand", (0.36, 0.31, 0.23, 0.43, 0.50), (0.34, 0.30, 0.23, 0.40, 0.46), (0.84, 0.75, 0.56), 0.05, 0.04, 0.05
    ),
    Material(
        "wet sand",
        (0.21, 0.185, 0.145, 0.25, 0.24),
        (0.20, 0.18, 0.145, 0.24, 0.22),
        (0.60, 0.53, 0.42),
        0.04,
        0.04,
        0.05,
    ),
    _leaf("broadleaf light", (0.056, 0.094, 0.038, 0.47, 0.20), (0.118, 0.096, 0.072, 0.21, 0.22), (0.30, 0.38, 0.14)),
    _leaf("broadleaf", (0.042, 0.074, 0.032, 0.42, 0.17), (0.102, 0.084, 0.064, 0.18, 0.20), (0.22, 0.30, 0.11)),
    _leaf("broadleaf dark", (0.032, 0.058, 0.027, 0.36, 0.14), (0.086, 0.072, 0.056, 0.16, 0.18), (0.17, 0.25, 0.10)),
    _leaf("conifer light", (0.029, 0.050, 0.029, 0.27, 0.11), (0.028, 0.045, 0.028, 0.23, 0.10), (0.11, 0.19, 0.10)),
    _leaf("conifer dark", (0.021, 0.037, 0.024, 0.22, 0.085), (0.021, 0.034, 0.024, 0.19, 0.08), (0.08, 0.14, 0.08)),
    _crop("lush grass", (0.068, 0.115, 0.046, 0.46, 0.22), (0.105, 0.116, 0.062, 0.30, 0.24), (0.32, 0.44, 0.16)),
    _crop("dry grass", (0.130, 0.138, 0.074, 0.36, 0.29), (0.140, 0.128, 0.080, 0.27, 0.29), (0.50, 0.50, 0.26)),
    Material(
        "mown grass",
        (0.058, 0.122, 0.042, 0.50, 0.21),
        (0.084, 0.112, 0.056, 0.34, 0.23),
        (0.26, 0.48, 0.14),
        0.035,
        0.02,
        0.03,
    ),
    Material(
        "mown stripe",
        (0.078, 0.148, 0.054, 0.54, 0.23),
        (0.104, 0.132, 0.068, 0.38, 0.25),
        (0.32, 0.56, 0.18),
        0.035,
        0.02,
        0.03,
    ),
    _crop("golden wheat", (0.300, 0.245, 0.140, 0.42, 0.42), (0.075, 0.090, 0.055, 0.26, 0.25), (0.84, 0.68, 0.32)),
    _crop("pale wheat", (0.345, 0.305, 0.195, 0.46, 0.44), (0.165, 0.135, 0.098, 0.23, 0.31), (0.88, 0.78, 0.48)),
    _crop("ripening wheat", (0.190, 0.190, 0.088, 0.40, 0.32), (0.070, 0.098, 0.050, 0.30, 0.23), (0.64, 0.62, 0.26)),
    _crop("rapeseed", (0.355, 0.350, 0.050, 0.56, 0.30), (0.052, 0.084, 0.042, 0.36, 0.21), (0.95, 0.86, 0.10)),
    _crop("thin rapeseed", (0.255, 0.280, 0.055, 0.52, 0.28), (0.072, 0.090, 0.050, 0.30, 0.24), (0.82, 0.80, 0.16)),
    _crop("vine", (0.060, 0.094, 0.040, 0.39, 0.19), (0.118, 0.096, 0.072, 0.19, 0.25), (0.27, 0.38, 0.13)),
    _crop("vine soil", (0.200, 0.155, 0.108, 0.27, 0.34), (0.165, 0.132, 0.096, 0.23, 0.30), (0.60, 0.46, 0.32)),
    _crop("bare soil", (0.160, 0.122, 0.086, 0.22, 0.31), (0.125, 0.098, 0.072, 0.18, 0.26), (0.46, 0.34, 0.23)),
    _hard("red tile roof", (0.300, 0.150, 0.100, 0.36, 0.36), _CREAM, 0.06),
    _hard("brown tile roof", (0.195, 0.128, 0.095, 0.27, 0.29), (0.86, 0.82, 0.74), 0.06),
    _hard("slate roof", (0.105, 0.110, 0.120, 0.13, 0.14), (0.70, 0.66, 0.60), 0.05),
    _hard("white roof", (0.52, 0.52, 0.51, 0.52, 0.44), (0.62, 0.66, 0.70), 0.02),
    _hard("gravel roof", (0.225, 0.218, 0.205, 0.26, 0.28), (0.74, 0.72, 0.70), 0.05),
    _hard("metal roof", (0.255, 0.285, 0.325, 0.33, 0.28), (0.44, 0.50, 0.58), 0.02),
    _hard("concrete", (0.285, 0.280, 0.262, 0.31, 0.31), (0.66, 0.65, 0.62), 0.04),
    _hard("asphalt", (0.092, 0.092, 0.094, 0.105, 0.12), (0.25, 0.25, 0.26), 0.04),
    _hard("old asphalt", (0.142, 0.139, 0.134, 0.160, 0.18), (0.36, 0.36, 0.35), 0.04),
    _hard("runway asphalt", (0.122, 0.120, 0.120, 0.137, 0.155), (0.31, 0.31, 0.31), 0.03),
    _hard("white paint", (0.50, 0.50, 0.48, 0.50, 0.40), (0.92, 0.92, 0.90), 0.03),
    _hard("ballast", (0.155, 0.136, 0.118, 0.185, 0.22), (0.41, 0.36, 0.31), 0.11),
    _hard("rail", (0.26, 0.225, 0.20, 0.28, 0.25), (0.54, 0.46, 0.40), 0.04),
    _hard("solar panel", (0.036, 0.046, 0.088, 0.055, 0.05), (0.09, 0.11, 0.24), 0.04),
    Material(
        "grey rock",
        (0.255, 0.242, 0.222, 0.29, 0.32),
        (0.25, 0.24, 0.225, 0.28, 0.30),
        (0.56, 0.54, 0.50),
        0.12,
        0.09,
        0.06,
    ),
    Material(
        "ochre rock",
        (0.320, 0.262, 0.188, 0.37, 0.43),
        (0.30, 0.25, 0.185, 0.35, 0.40),
        (0.74, 0.60, 0.42),
        0.10,
        0.08,
        0.06,
    ),
    _hard("gravel", (0.250, 0.232, 0.198, 0.29, 0.33), (0.62, 0.58, 0.50), 0.08),
    _hard("glass", (0.270, 0.315, 0.315, 0.40, 0.22), (0.72, 0.86, 0.86), 0.04),
    _hard("shaded glass", (0.400, 0.425, 0.420, 0.48, 0.28), (0.84, 0.92, 0.92), 0.03),
    _hard("wood", (0.215, 0.172, 0.128, 0.28, 0.30), (0.50, 0.38, 0.26), 0.08),
    _hard("red track", (0.270, 0.110, 0.080, 0.32, 0.30), (0.72, 0.28, 0.20), 0.03),
    _hard("blue court", (0.085, 0.140, 0.235, 0.24, 0.24), (0.20, 0.36, 0.62), 0.02),
    _hard("white hull", (0.58, 0.58, 0.57, 0.52, 0.36), (0.94, 0.94, 0.95), 0.02),
    _hard("red car", (0.275, 0.052, 0.045, 0.32, 0.22), (0.72, 0.10, 0.09), 0.02),
    _hard("dark car", (0.045, 0.048, 0.058, 0.06, 0.06), (0.10, 0.11, 0.14), 0.02),
    _hard("silver car", (0.345, 0.35, 0.36, 0.37, 0.28), (0.74, 0.75, 0.77), 0.02),
    _hard("blue car", (0.065, 0.108, 0.240, 0.17, 0.14), (0.14, 0.24, 0.58), 0.02),
    _hard("turbine white", (0.55, 0.56, 0.56, 0.52, 0.40), (0.95, 0.95, 0.96), 0.01),
    _hard("paving", (0.225, 0.195, 0.168, 0.27, 0.29), (0.58, 0.50, 0.44), 0.06),
    Material(
        "hedge",
        (0.038, 0.066, 0.030, 0.36, 0.15),
        (0.060, 0.066, 0.042, 0.24, 0.17),
        (0.14, 0.24, 0.09),
        0.12,
        0.06,
        0.03,
    ),
)

INDEX: dict[str, int] = {material.name: number for number, material in enumerate(MATERIALS)}
"""Material number by name."""


@dataclass(frozen=True)
class Palette:
    """The materials' looks as arrays, for lookup by the material raster: `palette.top[material]`.

    Attributes:
        top: (M, 5) float32 reflectance from above: red, green, blue, near infrared, short-wave infrared.
        side: (M, 3) float32 colour of vertical sides.
        texture: (M, 3) float32 relative amplitudes: grain (1 m), mottle (a few metres), drift (tens of metres).
    """

    top: Floats
    side: Floats
    texture: Floats


def season_of(taken: date | datetime) -> float:
    """How wintry a day looks, 0 (late June) to 1 (late December); leaves turn and fall rather quickly."""
    phase = 0.5 - 0.5 * np.cos(2 * np.pi * (taken.timetuple().tm_yday - SUMMER_DAY) / 365.25)
    return float(np.clip(1.6 * phase - 0.3, 0.0, 1.0))


@lru_cache(maxsize=32)
def palette(season: float = 0.0) -> Palette:
    """Looks of all materials in a season.

    Args:
        season: 0 for summer to 1 for winter (`season_of` tells it for a date); values between are blended.
    """
    summer = np.array([material.summer for material in MATERIALS], np.float32)
    winter = np.array([material.winter for material in MATERIALS], np.float32)
    side = np.array([material.side for material in MATERIALS], np.float32)
    texture = np.array([(m.grain, m.mottle, m.drift) for m in MATERIALS], np.float32)
    return Palette(summer + np.float32(season) * (winter - summer), side, texture)
