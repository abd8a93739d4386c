"""Model folders in and out: `config.json`, `model.safetensors` in float16, a card and an item for catalogues.

Reading is strict and writing is whole: all files are written beside their final names before the first is renamed, and
the weights are renamed first. A save that is killed in between has left the new configuration beside the old one, where
loading finds it by the weights' fingerprint; a folder whose files do not belong together is refused.
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

from geograft.errors import CheckpointMismatch, ModelMismatch, SensorMismatch, UnknownModel
from geograft.models.card import model_card
from geograft.models.model import FORMAT, JOINT, Model, Origin
from geograft.models.satellite import LEVELS, Encoder, EncoderSettings, EncoderShape, Level, SatelliteEncoder
from geograft.models.satellite import load_strictly as load_weights
from geograft.models.stac_mlm import ModelFile, mlm_item
from geograft.models.teacher import Teacher
from geograft.sensors import Sensor
from geograft.tables import atomic, versions

SHIPPED: dict[str, str] = {"mini": "mini-1m", "mini-1m": "mini-1m", "mini-10m": "mini-10m"}
"""Names of the models inside the package, to their folder in `assets/models`."""

CONFIG, WEIGHTS, CARD, ITEM = "config.json", "model.safetensors", "README.md", "stac-mlm.json"

_PLAIN = "satellite"
"""The kind of encoder that a configuration without one has."""


def save_model(model: Model, folder: str | Path) -> Path:
    """Write a model folder, over an older one of the same name if it is there.

    Returns:
        The folder.

    Raises:
        CheckpointMismatch: a weight is not finite in float16, or the encoders are of a kind that has no folder; nothing
            is written.
        ModelMismatch: the model is an export, which has no weights to save.
        DiskFull: the disk filled up; an older model of the folder stays as it was.
    """
    folder = Path(folder)
    weights = model.weights()
    if broken := [key for key, value in weights.items() if not value.isfinite().all()]:
        raise CheckpointMismatch(f"The model is not saved: {broken[0]} holds NaN or values beyond float16.")
    stored = save_tensors(weights)
    item = mlm_item(model, [ModelFile(WEIGHTS, stored, "safetensors")])
    contents = {
        CARD: model_card(model).encode(),
        ITEM: to_json(item),
        CONFIG: to_json(config_of(model)),
        WEIGHTS: stored,  # the last that is entered is the first that is renamed
    }
    with ExitStack() as renames:
        for name, content in contents.items():
            renames.enter_context(atomic(folder / name)).write_bytes(content)
    _tidy(folder)
    return folder


def load_model(name: str | Path, *, teacher: Teacher | None = None) -> Model:
    """The model of a name or folder.

    Args:
        name: "mini" (the same as "mini-1m") or "mini-10m", shipped with the package; a model folder, or one that
            `export_model` wrote; or such a folder on the hub, "hf-hub:org/name[@revision]".
        teacher: the model's teacher, where it is loaded already or has moved; otherwise it is found by its name
            when text is first asked for.

    Raises:
        UnknownModel: nothing has that name.
        CheckpointMismatch: the folder is of another architecture or version, lacks weights, has unknown ones,
            or its files do not belong together.
        ModelMismatch: the given teacher is not the one of the training.
        MissingExtra: the folder is an export, and the library that runs it is not installed.
    """
    folder = _folder(str(name))
    if not (folder / CONFIG).is_file():
        raise UnknownModel(
            f"There is no model {str(name)!r}: give a folder with a {CONFIG}, or one of {', '.join(SHIPPED)}."
        )
    model = _load_export(folder) if "export" in read_config(folder) else _load_folder(folder)
    if teacher is not None:
        model.use_teacher(teacher)
    return model


# --- writing ----------------------------------------------------------------------------------------------


def config_of(model: Model) -> dict[str, Any]:
    """What `config.json` holds."""
    teacher = {"name": model.teacher_name, "fingerprint": model.teacher_fingerprint} if model.has_teacher else None
    config: dict[str, Any] = {
        "format": FORMAT,
        "architecture": "geograft-satellite-encoder",
        "name": model.name,
        "fingerprint": model.fingerprint,
        "levels": {level: _shape_of(encoder) for level, encoder in model.encoders.items()},
        "joint": model.joint,
        "sensor": dataclasses.asdict(model.sensor),
        "gsd": model.gsd,
        "chip_size": model.chip_size,
        "teacher": teacher,
        "licence": model.origin.licence,
        "training": dict(model.origin.training),
        "metrics": dict(model.origin.metrics),
        "versions": versions(),
    }
    return config


def to_json(values: dict[str, Any]) -> bytes:
    """Values as the bytes of a JSON file."""
    return (json.dumps(values, indent=2, default=_plain, ensure_ascii=False) + "\n").encode()


def _shape_of(encoder: Encoder) -> dict[str, Any]:
    """An encoder's settings, with its kind where it is not the plain one."""
    kind = _kind_of(encoder)
    return encoder.settings.to_dict() if kind == _PLAIN else {"kind": kind, **encoder.settings.to_dict()}


def _kind_of(encoder: Encoder) -> str:
    """What a configuration calls an encoder's architecture.

    Raises:
        CheckpointMismatch: it has no name, so that loading could not build it again.
    """
    for kind in (_PLAIN, "siglip"):
        if type(encoder) is _architecture(kind)[1]:
            return kind
    raise CheckpointMismatch(f"Encoders of the type {type(encoder).__name__} have no place in a model folder.")


def _architecture(kind: str) -> tuple[type[Any], type[Any]]:
    """The classes of settings and encoder of a kind.

    Raises:
        CheckpointMismatch: no kind has that name.
    """
    if kind == _PLAIN:
        return EncoderSettings, SatelliteEncoder
    if kind == "siglip":
        from geograft.models.rgb import SiglipEncoder, SiglipSettings

        return SiglipSettings, SiglipEncoder
    raise CheckpointMismatch(f"Encoders of the kind {kind!r} are unknown to this version: install a newer geograft.")


def _tidy(folder: Path) -> None:
    """Remove what killed saves have left of the folder's files."""
    for name in (CONFIG, WEIGHTS, CARD, ITEM):
        for leftover in folder.glob(_unfinished(name)):
            leftover.unlink(missing_ok=True)


def _unfinished(name: str) -> str:
    """The pattern of the names that a file has until it is whole."""
    path = Path(name)
    return f".{path.stem}.*.part{path.suffix}"


def _plain(value: Any) -> Any:
    """A number of numpy or torch as Python's, anything else by its name."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


# --- reading ----------------------------------------------------------------------------------------------


def read_config(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    """The configuration of a model folder, of this version.

    Raises:
        CheckpointMismatch: it is damaged, or describes something else.
    """
    path = folder / name
    try:
        config = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointMismatch(f"{path} is not a configuration ({error}): copy the folder again.") from error
    if "format" not in config or "levels" not in config:
        kind = config.get("model_type", "unknown")
        raise CheckpointMismatch(f"{path} describes a model of the type {kind!r}, not a GeoGRAFT model folder.")
    if config.get("architecture") == "geograft-multi-encoder":
        raise CheckpointMismatch(
            f"{folder} holds the weights for all sensors at once: load the model of one, in the folder called by the "
            "sensor beside it, or bake another with geograft.models.multi.load_multi and bake."
        )
    if config["format"] != FORMAT:
        raise CheckpointMismatch(f"{path} has the format {config['format']}; this version reads {FORMAT}.")
    return config


def settings_of(config: dict[str, Any]) -> dict[Level, EncoderShape]:
    """The shapes of the encoders that a configuration describes.

    Raises:
        CheckpointMismatch: a level, a kind or a setting is unknown.
    """
    return {_level(name): _settings(values) for name, values in config["levels"].items()}


def model_parts(config: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `Model` that a configuration holds."""
    teacher = config["teacher"]
    return {
        "sensor": _sensor(config["sensor"]),
        "teacher": (teacher["name"], teacher["fingerprint"]) if teacher else None,
        "gsd": config["gsd"],
        "origin": Origin(config["training"], config["metrics"], str(config.get("licence", ""))),
        "name": config["name"],
    }


def _folder(name: str) -> Path:
    """Where a model lies; what is on the hub is downloaded."""
    if name in SHIPPED:
        return _shipped(name)
    if name.startswith("hf-hub:"):
        from geograft.models.hub import download_folder

        return download_folder(name)
    return Path(name)


def _load_export(folder: Path) -> Model:
    from geograft.models.inference.exported import load_exported

    return load_exported(folder)


def _load_folder(folder: Path) -> Model:
    """The model of a folder of weights, by its configuration or that of a save that was killed half way."""
    weights = _read_weights(folder / WEIGHTS)
    try:
        return _build_checked(read_config(folder), weights, folder)
    except CheckpointMismatch:
        for path in folder.glob(_unfinished(CONFIG)):
            try:
                return _build_checked(read_config(folder, path.name), weights, folder)
            except CheckpointMismatch:
                continue
        raise


def _build_checked(config: dict[str, Any], weights: dict[str, Tensor], folder: Path) -> Model:
    """The model of a configuration, if the weights are those that it was written for."""
    model = _build(config, weights, folder)
    if model.fingerprint != config["fingerprint"]:
        raise CheckpointMismatch(
            f"The weights in {folder} are not those that its {CONFIG} was written for "
            f"({model.fingerprint} instead of {config['fingerprint']}): copy the whole folder again."
        )
    return model


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
        return Model(_encoders(config, weights, folder), **model_parts(config))
    except (KeyError, TypeError, AttributeError, SensorMismatch, ModelMismatch) as error:
        raise CheckpointMismatch(f"{folder / CONFIG} is incomplete or damaged ({error!r}).") from error


def _level(name: str) -> Level:
    """A level's name, checked."""
    for level in LEVELS:
        if name == level:
            return level
    raise CheckpointMismatch(f"No level is called {name!r}; the levels are {' and '.join(LEVELS)}.")


def _settings(values: dict[str, Any]) -> EncoderShape:
    """The settings of an encoder of any kind."""
    plain = {key: value for key, value in values.items() if key != "kind"}
    found: EncoderShape = _architecture(values.get("kind", _PLAIN))[0].from_dict(plain)
    return found


def _encoders(config: dict[str, Any], weights: dict[str, Tensor], folder: Path) -> dict[Level, Encoder]:
    """The encoders with their weights, every key accounted for."""
    levels = settings_of(config)
    stored: dict[str, tuple[Level, ...]] = {JOINT: tuple(levels)} if config.get("joint") else {k: (k,) for k in levels}
    if strangers := [key for key in weights if key.split(".")[0] not in stored]:
        raise CheckpointMismatch(f"{folder / WEIGHTS} holds {strangers[0]}, which is of no level of its {CONFIG}.")
    encoders: dict[Level, Encoder] = {}
    for name, served in stored.items():
        own = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
        if not own:
            raise CheckpointMismatch(f"{folder / WEIGHTS} holds no weights of the {name} level that {CONFIG} names.")
        encoder = _architecture(config["levels"][served[0]].get("kind", _PLAIN))[1](levels[served[0]])
        load_weights(encoder, own, source=f"The {name} level of {folder}")
        encoders |= dict.fromkeys(served, encoder)
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
