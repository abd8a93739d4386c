"""Model folders in and out: `config.json`, `model.safetensors` in float16, and a card in `README.md`.

Reading is strict and writing is whole: all files are written beside their final names before the first is
renamed, and the configuration holds the fingerprint of the weights, so a mixed folder is refused.
"""

import dataclasses
import json
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from geograft.errors import CheckpointMismatch, SensorMismatch, UnknownModel
from geograft.models.card import model_card
from geograft.models.model import FORMAT, Model, Origin
from geograft.models.satellite import LEVELS, EncoderSettings, Level, SatelliteEncoder, load_strictly
from geograft.models.teacher import Teacher
from geograft.sensors import Sensor
from geograft.tables import atomic, versions

SHIPPED: dict[str, str] = {"mini": "mini-1m", "mini-1m": "mini-1m", "mini-10m": "mini-10m"}
"""Names of the models inside the package, to their folder in `assets/models`."""

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


def save_model(model: Model, folder: str | Path) -> Path:
    """Write a model folder, over an older one of the same name if it is there.

    Returns:
        The folder.

    Raises:
        CheckpointMismatch: a weight is not finite in float16; nothing is written.
        DiskFull: the disk filled up; an older model of the folder stays as it was.
    """
    folder = Path(folder)
    weights = model.weights()
    if broken := [key for key, value in weights.items() if not value.isfinite().all()]:
        raise CheckpointMismatch(f"The model is not saved: {broken[0]} holds NaN or values beyond float16.")
    config = json.dumps(_config(model), indent=2, default=_plain, ensure_ascii=False) + "\n"
    contents = {WEIGHTS: save_tensors(weights), CARD: model_card(model).encode(), CONFIG: config.encode()}
    with ExitStack() as renames:
        for name, content in contents.items():
            renames.enter_context(atomic(folder / name)).write_bytes(content)
    return folder


def load_model(name: str | Path, *, teacher: Teacher | None = None) -> Model:
    """The model of a name or folder.

    Args:
        name: "mini" (the same as "mini-1m") or "mini-10m", shipped with the package, or a model folder.
        teacher: the model's teacher, where it is loaded already or has moved; otherwise it is found by its name
            when text is first asked for.

    Raises:
        UnknownModel: nothing has that name.
        CheckpointMismatch: the folder is of another architecture or version, lacks weights, has unknown ones,
            or its files do not belong together.
        ModelMismatch: the given teacher is not the one of the training.
    """
    folder = _shipped(str(name)) if str(name) in SHIPPED else Path(name)
    if not (folder / CONFIG).is_file():
        raise UnknownModel(
            f"There is no model {str(name)!r}: give a folder with a {CONFIG}, or one of {', '.join(SHIPPED)}."
        )
    config = _read_config(folder)
    weights = _read_weights(folder / WEIGHTS)
    model = _build(config, weights, folder)
    if model.fingerprint != config["fingerprint"]:
        raise CheckpointMismatch(
            f"The weights in {folder} are not those that its {CONFIG} was written for "
            f"({model.fingerprint} instead of {config['fingerprint']}): copy the whole folder again."
        )
    if teacher is not None:
        model.use_teacher(teacher)
    return model


def _config(model: Model) -> dict[str, Any]:
    """What `config.json` holds."""
    return {
        "format": FORMAT,
        "architecture": "geograft-satellite-encoder",
        "name": model.name,
        "fingerprint": model.fingerprint,
        "levels": {level: encoder.settings.to_dict() for level, encoder in model.encoders.items()},
        "sensor": dataclasses.asdict(model.sensor),
        "gsd": model.gsd,
        "chip_size": model.chip_size,
        "teacher": {"name": model.teacher_name, "fingerprint": model.teacher_fingerprint},
        "training": dict(model.origin.training),
        "metrics": dict(model.origin.metrics),
        "versions": versions(),
    }


def _plain(value: Any) -> Any:
    """A number of numpy or torch as Python's, anything else by its name."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a model folder, of this version."""
    path = folder / CONFIG
    try:
        config = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointMismatch(f"{path} is not a configuration ({error}): copy the folder again.") from error
    if "format" not in config or "levels" not in config:
        kind = config.get("model_type", "unknown")
        raise CheckpointMismatch(f"{path} describes a model of the type {kind!r}, not a GeoGRAFT model folder.")
    if config["format"] != FORMAT:
        raise CheckpointMismatch(f"{path} has the format {config['format']}; this version reads {FORMAT}.")
    return config


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file."""
    try:
        tensors: dict[str, Tensor] = load_tensors(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise CheckpointMismatch(f"{path} is missing or truncated ({error}): copy the folder again.") from error
    return tensors


def _build(config: dict[str, Any], weights: dict[str, Tensor], folder: Path) -> Model:
    """A model of its configuration and weights."""
    try:
        levels = {_level(name): EncoderSettings.from_dict(values) for name, values in config["levels"].items()}
        encoders = _encoders(levels, weights, folder)
        return Model(
            encoders,
            sensor=_sensor(config["sensor"]),
            teacher=(config["teacher"]["name"], config["teacher"]["fingerprint"]),
            gsd=config["gsd"],
            origin=Origin(training=config["training"], metrics=config["metrics"]),
            name=config["name"],
        )
    except (KeyError, TypeError, AttributeError, SensorMismatch) as error:
        raise CheckpointMismatch(f"{folder / CONFIG} is incomplete or damaged ({error!r}).") from error


def _level(name: str) -> Level:
    """A level's name, checked."""
    for level in LEVELS:
        if name == level:
            return level
    raise CheckpointMismatch(f"No level is called {name!r}; the levels are {' and '.join(LEVELS)}.")


def _encoders(
    levels: dict[Level, EncoderSettings], weights: dict[str, Tensor], folder: Path
) -> dict[Level, SatelliteEncoder]:
    """The encoders with their weights, every key accounted for."""
    prefixes = tuple(f"{level}." for level in levels)
    if strangers := [key for key in weights if not key.startswith(prefixes)]:
        raise CheckpointMismatch(f"{folder / WEIGHTS} holds {strangers[0]}, which is of no level of its {CONFIG}.")
    encoders = {}
    for level, settings in levels.items():
        own = {key.removeprefix(f"{level}."): value for key, value in weights.items() if key.startswith(f"{level}.")}
        if not own:
            raise CheckpointMismatch(f"{folder / WEIGHTS} holds no weights of the {level} level that {CONFIG} names.")
        encoders[level] = SatelliteEncoder(settings)
        load_strictly(encoders[level], own, source=f"The {level} level of {folder}")
    return encoders


def _sensor(values: dict[str, Any]) -> Sensor:
    """The sensor of a configuration; lists become tuples."""
    fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return Sensor(**fields)


def _shipped(name: str) -> Path:
    """The folder of a model inside the package."""
    folder = Path(str(resources.files("geograft"))) / "assets" / "models" / SHIPPED[name]
    if not (folder / CONFIG).is_file():
        raise UnknownModel(
            f"The model {name} is not at {folder}: this installation lacks it; train one, or name a folder."
        )
    return folder
