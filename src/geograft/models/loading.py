"""`geograft.load`: the model of a name, folder or file, whoever trained it.

What a file or folder is, its content says. Everything is tried without the network first.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from geograft.errors import BadSetting, CheckpointMismatch, ModelMismatch, UnknownModel, UnknownSensor
from geograft.models.checkpoints import CONFIG, SHIPPED, load_model
from geograft.models.clip import ClipTeacher, clip_of_foreign
from geograft.models.folders import find_file, find_folder, is_hub_name
from geograft.models.foreign import read_foreign, sniff
from geograft.models.foreign.result import Foreign
from geograft.models.model import Model, Origin
from geograft.models.preprocess import clip_preprocess
from geograft.models.rgb import rgb_model, rgb_sensor, settings_of_tower
from geograft.models.satellite import Encoder, Level, SatelliteEncoder, load_strictly
from geograft.models.teacher import Teacher, load_teacher
from geograft.models.zoo import ZooEntry, find_entry
from geograft.sensors import Sensor, get_sensor

Activation = Literal["gelu", "quick_gelu"]

NO_TEXT = "none"
"""What `text` is where a model is to be loaded without any text encoder."""

_ACTIVATIONS: dict[str, Activation] = {"gelu": "gelu", "quick_gelu": "quick_gelu"}
_ALIASES = {"sentinel-2": "sentinel-2-l2a"}
_FILES = frozenset({".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".onnx", ".xml"})
_LICENCES = {"MIT": "mit", "Apache-2.0": "apache-2.0"}


@dataclasses.dataclass(frozen=True)
class _Wishes:
    """What the caller says beside the name."""

    pixel: str | Path | None = None
    sensor: str | Sensor | None = None
    gsd: float | None = None
    text: str | Path | Teacher | None = None
    architecture: str | None = None
    activation: Activation | None = None
    chip_size: int | None = None

    def metres(self) -> float | None:
        """The ground sample distance that is wished for, by itself or by the sensor's name."""
        if self.gsd is not None or self.sensor is None:
            return self.gsd
        sensor = self.sensor
        return get_sensor(_ALIASES.get(sensor, sensor) if isinstance(sensor, str) else sensor).gsd

    def refuse(self, what: str, *names: str) -> None:
        """Refuse wishes that a kind of model cannot fulfil."""
        if given := [name for name in names if getattr(self, name) is not None]:
            raise BadSetting(f"{what}, so {given[0]}= cannot be chosen; leave it out.")


def load(
    source: str | Path,
    *,
    pixel: str | Path | None = None,
    sensor: str | Sensor | None = None,
    gsd: float | None = None,
    text: str | Path | Teacher | None = None,
    architecture: str | None = None,
    activation: Activation | None = None,
    chip_size: int | None = None,
) -> Model:
    """The model of a name, folder or file.

    * "mini", "mini-10m", a model folder or an exported one: the model as it was trained.
    * A name of the zoo (`geograft models`): what its entry says.
    * A CLIP or SigLIP (a folder in transformers' format, "hf-hub:org/name@revision", a file in open_clip's or OpenAI's
      layout): a model of the sensor `rgb` at the image level, which answers to its own text encoder.
    * GRAFT's `.ckpt`: a model of its level, which answers to the CLIP that `text` names.

    Args:
        source: a name, folder, file or hub name.
        pixel: GRAFT's second file, of the pixel level, where `source` is the one of the image level.
        sensor: the imagery that GRAFT was trained on ("naip", "sentinel-2"), which its file does not say; for a CLIP,
            whose ground sample distance to see scenes at.
        gsd: metres per pixel at which a CLIP shall see scenes; 1 m, or that of the zoo, where None.
        text: the text encoder of a model that has none with it: what `load_teacher` takes, or "none" to do without.
            Where None, GRAFT's is openai/clip-vit-base-patch16.
        architecture: of a file whose shapes do not tell it, in open_clip's spelling ("ViT-L-14").
        activation: of a file that does not say it; known for the usual projects.
        chip_size: chip width in px for SigLIP 2 of native aspect ratio; others have one.

    Raises:
        UnknownModel: nothing has that name; the sentence lists names that are near.
        UnknownSensor: a GRAFT file without its sensor.
        CheckpointMismatch: the file is damaged or of a layout that is not read.
        ModelMismatch: the text encoder is not one that the model answers to.
        BadSetting: a wish that this kind of model cannot fulfil.
    """
    wishes = _Wishes(pixel, sensor, gsd, text, architecture, activation, chip_size)
    name, path = str(source), Path(source)
    if name in SHIPPED:
        return _own_folder(name, wishes)
    if name and path.exists():
        return _of_path(path, wishes, name=path.resolve().stem, teacher=str(path.resolve()))
    if is_hub_name(name):
        return _of_path(find_folder(name), wishes, name=name, teacher=name)
    if path.suffix.lower() in _FILES:
        raise UnknownModel(f"There is no file {path}: check the path.")
    return _of_entry(find_entry(name), wishes)


def _of_entry(entry: ZooEntry, wishes: _Wishes) -> Model:
    """The model of an entry of the zoo."""
    if "model" not in entry.use:
        raise UnknownModel(f"{entry.title} is a teacher only: geograft.load_teacher({entry.name!r}).")
    if not entry.hub:
        raise UnknownModel(f"The weights of {entry.title} cannot be fetched. {entry.bring} ({entry.how_to_load})")
    wishes = dataclasses.replace(
        wishes,
        gsd=wishes.metres() if wishes.metres() is not None else entry.gsd,
        architecture=wishes.architecture or entry.architecture or None,
        activation=wishes.activation or _ACTIVATIONS.get(entry.activation),
    )
    path = find_file(entry.hub, entry.file) if entry.file else find_folder(entry.hub)
    model = _of_path(path, wishes, name=entry.name, teacher=entry.name)
    model.origin = dataclasses.replace(model.origin, licence=_LICENCES.get(entry.licence, ""))
    return model


def _of_path(path: Path, wishes: _Wishes, *, name: str, teacher: str) -> Model:
    """The model of a folder or file; a CLIP in it is called `teacher`, which finds it again."""
    kind = sniff(path)
    if kind == "graft":
        return _graft(path, wishes, name)
    wishes.refuse(f"{name} is no file of GRAFT", "pixel")
    if kind not in {None, "torchscript"}:
        foreign = read_foreign(path, architecture=wishes.architecture, activation=wishes.activation)
        if foreign.level is not None:
            return _image_tower(foreign, wishes, name)
        return _clip(clip_of_foreign(foreign, name=teacher), wishes, name)
    if path.is_dir():
        return _of_folder(path, wishes, name=name, teacher=teacher)
    raise CheckpointMismatch(
        f"{path} is no model: an exported encoder of photos (ONNX, TorchScript) can be a teacher "
        "(geograft.load_teacher); a model is a folder, a CLIP of open_clip's layout, or GRAFT's .ckpt."
    )


def _of_folder(path: Path, wishes: _Wishes, *, name: str, teacher: str) -> Model:
    """The model of a folder: ours, or a CLIP or SigLIP in transformers' format."""
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    if isinstance(config, Mapping) and "model_type" in config:
        return _clip(ClipTeacher(path, name=teacher), wishes, name)
    return _own_folder(path, wishes)


# --- ours -------------------------------------------------------------------------------------------------


def _own_folder(source: str | Path, wishes: _Wishes) -> Model:
    """A model folder of this package, or an export of one."""
    wishes.refuse(
        f"The model {source} knows what it was trained on",
        "pixel", "sensor", "gsd", "architecture", "activation", "chip_size",
    )  # fmt: skip
    return _with_text(load_model(source), wishes)


def _with_text(model: Model, wishes: _Wishes) -> Model:
    """The model with the teacher that the caller names, which must be that of its training."""
    teacher = _named_text(wishes)
    if teacher is not None:
        model.use_teacher(teacher)
    return model


def _named_text(wishes: _Wishes) -> Teacher | None:
    """The teacher that the caller names, if any."""
    if wishes.text is None or wishes.text == NO_TEXT:
        return None
    return wishes.text if isinstance(wishes.text, Teacher) else load_teacher(wishes.text)


# --- CLIP and SigLIP --------------------------------------------------------------------------------------


def _clip(own: ClipTeacher, wishes: _Wishes, name: str) -> Model:
    """The model that a CLIP or SigLIP makes by itself."""
    model = rgb_model(own, gsd=wishes.metres(), chip_size=wishes.chip_size, name=name)
    text = _named_text(wishes)
    if text is not None and own.tokenizer is not None and text.fingerprint != own.fingerprint:
        raise ModelMismatch(
            f"{name} answers to its own text encoder ({own.fingerprint}), not to {text.name} ({text.fingerprint}): "
            "leave text= out."
        )
    teacher: Teacher | None = None if wishes.text == NO_TEXT else text or own
    return _model(model.encoders, model.sensor, teacher, name)


def _image_tower(foreign: Foreign, wishes: _Wishes, name: str) -> Model:
    """The model of an image tower alone, which answers to the text encoder that the caller names."""
    sensor = _seen_as(foreign, wishes.metres())
    return _model({"image": _encoder(foreign, name)}, sensor, _named_text(wishes), name, foreign.notes)


def _encoder(foreign: Foreign, name: str) -> SatelliteEncoder:
    """The satellite encoder of a file's weights."""
    encoder = SatelliteEncoder(
        settings_of_tower(foreign.config.vision_config, dim=foreign.config.projection_dim, source=name)
    )
    load_strictly(encoder, foreign.weights, source=name)
    return encoder


def _seen_as(foreign: Foreign, gsd: float | None) -> Sensor:
    """The sensor `rgb` with a file's preprocessing."""
    size = foreign.config.vision_config.image_size
    return rgb_sensor(clip_preprocess(size, foreign.notes.get("preprocess"), source="the checkpoint"), gsd)


# --- GRAFT ------------------------------------------------------------------------------------------------


def _graft(path: Path, wishes: _Wishes, name: str) -> Model:
    """GRAFT's released encoders, of one level or both."""
    if wishes.metres() is None:
        raise UnknownSensor(
            f"{path} does not say what it was trained on: GRAFT's are of NAIP at 1 m and of Sentinel-2 at 10 m. "
            "Give sensor='naip' or sensor='sentinel-2'."
        )
    wishes.refuse("GRAFT has one activation and one chip size", "activation", "chip_size")
    found = _graft_levels(path, wishes)
    first = next(iter(found.values()))
    encoders = {level: _encoder(foreign, f"{path} ({level} level)") for level, foreign in found.items()}
    return _model(encoders, _seen_as(first, wishes.metres()), _graft_text(first, wishes), name, first.notes)


def _graft_levels(path: Path, wishes: _Wishes) -> dict[Level, Foreign]:
    """The files of the levels."""
    if wishes.pixel is None:
        foreign = read_foreign(path, architecture=wishes.architecture)
        assert foreign.level is not None
        return {foreign.level: foreign}
    second = Path(wishes.pixel)
    if sniff(second) != "graft":
        raise CheckpointMismatch(f"{second} is no file of GRAFT, whose pixel level pixel= names.")
    return {
        "image": read_foreign(path, architecture=wishes.architecture, level="image"),
        "pixel": read_foreign(second, architecture=wishes.architecture, level="pixel"),
    }


def _graft_text(foreign: Foreign, wishes: _Wishes) -> Teacher | None:
    """The CLIP whose text encoder GRAFT answers to."""
    if wishes.text is not None:
        return _named_text(wishes)
    name = foreign.text_encoder or "openai/clip-vit-base-patch16"
    try:
        return load_teacher(name)
    except UnknownModel as error:
        raise UnknownModel(
            f"GRAFT answers to the text encoder of {name}, which is not found ({error}) Name its folder by text=, or "
            'give text="none" to embed chips without words.'
        ) from error


def _model(
    encoders: Mapping[Level, Encoder],
    sensor: Sensor,
    teacher: Teacher | None,
    name: str,
    notes: Mapping[str, Any] | None = None,
) -> Model:
    """A model of parts, which says what it came from."""
    kept = {key: value for key, value in (notes or {}).items() if key in {"project", "architecture", "activation"}}
    origin = Origin(training={"pretrained": name, **{key: value for key, value in kept.items() if value}})
    return Model(encoders, sensor=sensor, teacher=teacher, origin=origin, name=name)
