"""Chips of pairs or scenes to calibrate int8 on: some of each, spread over all."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from geograft.errors import BadSetting, EmptyTable
from geograft.models.inference.export import ExportSummary, Format, export_model
from geograft.models.model import Model
from geograft.raster import Scene
from geograft.tasks.sources import iterate_scenes, resolve_model
from geograft.tasks.windows import chip_starts, cut, open_view

CHIPS = 311
"""As many as int8 measures ranges on, and those that parity is measured on."""

_MIN_VALID = 0.5
_SCENES = 40
"""Scenes of a table that are drawn from."""

T = TypeVar("T")


def calibration_chips(
    source: str | Path, model: Model, *, count: int = CHIPS, seed: int = 0, sensor: str | None = None
) -> NDArray[Any]:
    """Chips as the model sees them, drawn at random.

    Args:
        source: a folder of pairs, a scene, a folder of scenes or a scene table.
        model: for whose sensor, ground sample distance and size they are.
        count: how many; fewer where there are no more.
        seed: of the draw.
        sensor: sensor of rasters whose file does not say it.

    Returns:
        Native values of the model's sensor, (n, C, S, S).

    Raises:
        EmptyTable: there is no chip with data.
        BadSetting: the pairs' chips are of another size or sensor than the model's.
        MissingInput: the source does not exist.
    """
    rng = np.random.default_rng(seed)
    if (Path(source) / "chips.parquet").is_file():
        found = _sample(_of_pairs(Path(source), model), count, rng)
    else:
        found = _of_scenes(source, model, count, rng, sensor)
    if not found:
        raise EmptyTable(f"{source} holds no chip with data to calibrate on: give other pairs or scenes.")
    return np.stack([found[row] for row in rng.permutation(len(found))[:count]])


def export_calibrated(
    model: Model | str | Path,
    out: str | Path,
    *,
    form: Format = "onnx",
    int8: bool = False,
    calibration: str | Path | None = None,
    sensor: str | None = None,
) -> ExportSummary:
    """`export_model` of a model's name, calibrated on pairs or scenes.

    Args:
        model: a model, its folder or its name.
        out: the folder to write; empty or absent.
        form: "onnx" or "openvino".
        int8: 8-bit weights and activations.
        calibration: what `calibration_chips` takes; parity is measured on some of its chips.
        sensor: sensor of rasters whose file does not say it.

    Raises:
        UnknownModel: nothing has the model's name.
        MissingExtra, OutputExists, ExportFailed, DiskFull: see `export_model`.
        EmptyTable, MissingInput: see `calibration_chips`.
    """
    network = resolve_model(model)
    chips = None if calibration is None else calibration_chips(calibration, network, sensor=sensor)
    return export_model(network, out, format=form, int8=int8, calibration=chips)


def _of_pairs(folder: Path, model: Model) -> Iterator[NDArray[Any]]:
    """The chips of a folder of pairs, one after another."""
    from geograft.pairs.streams import iter_chips

    for chip in iter_chips(folder):
        if chip.sensor.name != model.sensor.name or chip.pixels.shape[-1] != model.chip_size:
            raise BadSetting(
                f"The chips of {folder} are {chip.pixels.shape[-1]} px of {chip.sensor.name}, but {model.name} takes "
                f"{model.chip_size} px of {model.sensor.name}: calibrate on its own pairs, or on scenes."
            )
        yield chip.pixels


def _of_scenes(
    source: str | Path, model: Model, count: int, rng: np.random.Generator, sensor: str | None
) -> list[NDArray[Any]]:
    """Chips at random places of some scenes, as many of each."""
    scenes: list[Scene] = _sample((scene for _, scene in iterate_scenes(source, sensor)), _SCENES, rng)
    found: list[NDArray[Any]] = []
    for scene in scenes:
        view = open_view(scene, sensor=model.sensor, gsd=model.gsd, size=model.chip_size)
        starts = [chip_starts(length, model.chip_size, max(1, model.chip_size // 2)) for length in view.shape]
        for _ in range(-(-count // len(scenes))):
            top, left = (rng.choice(each, 1) for each in starts)
            chip = cut(view, top, left, size=model.chip_size)
            if chip.valid[0] >= _MIN_VALID:
                found.append(chip.pixels[0])
    return found


def _sample(items: Iterator[T], count: int, rng: np.random.Generator) -> list[T]:
    """Some of many items, every one as likely as any other, whose number need not be known (Vitter's algorithm R)."""
    kept: list[T] = []
    for number, item in enumerate(items):
        if number < count:
            kept.append(item)
        elif (place := int(rng.integers(0, number + 1))) < count:
            kept[place] = item
    return kept
