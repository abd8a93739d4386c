"""A model: satellite encoders of one or both levels, the bands they read, and the teacher that they answer to.

What a user holds. Pixels go in as a scene stores them; unit vectors come out as numpy arrays, comparable with the
teacher's text and photo vectors and with those of no other teacher, which the fingerprints guarantee.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geograft.errors import BadQuery, ModelMismatch, NoTextEncoder, UnknownModel
from geograft.models.inference.eager import Backend, TorchBackend
from geograft.models.numerics import to_unit, weights_digest
from geograft.models.satellite import LEVELS, Encoder, Level
from geograft.models.teacher import Teacher, load_teacher
from geograft.sensors import Sensor

FORMAT = 1
"""Version of the model folder's layout."""

JOINT = "joint"
"""What takes the place of the level in the weights' keys where one encoder serves both levels."""

DISPLAY = "rgb"
"""The sensor whose values are those of a picture: imagery of any sensor becomes it by that sensor's own stretch."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a model comes from: kept in its folder and printed on its card.

    Attributes:
        training: how it was trained: data, settings, command, seed. The card and the catalogue item know
            `photo_licences` (licence to number of photos), `bounds` (west, south, east, north in degrees), `period`
            (first and last day, ISO 8601) and `pretrained` (what the weights started from).
        metrics: what was measured on it, name to value.
        licence: under which the model may be passed on, as the hub writes it ("apache-2.0"); "" where undecided.
    """

    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    licence: str = ""


class Model:
    """Satellite encoders with the text encoder that they answer to.

    Args:
        encoders: level ("image", "pixel") to encoder, one or both, of equal bands, size and embedding length; any
            architecture that fulfils `Encoder`. A joint encoder serves both levels with the same weights: the same
            object twice.
        sensor: what the encoders' bands mean; its mean and std normalise their input.
        teacher: the teacher that the encoders were trained on, or its name and fingerprint, in which case it
            is loaded when text or photos are asked for; None where there is none, and chips are only compared
            with chips.
        gsd: metres per pixel of the chips that the encoders were trained on; the sensor's where None.
        origin: training and metrics.
        name: what the model is called.

    Attributes:
        batch: chips that are encoded at once.

    Raises:
        ModelMismatch: the encoders disagree with one another, with the sensor's bands or the teacher's length.
    """

    def __init__(
        self,
        encoders: Mapping[Level, Encoder],
        *,
        sensor: Sensor,
        teacher: Teacher | tuple[str, str] | None,
        gsd: float | None = None,
        origin: Origin | None = None,
        name: str = "unnamed",
    ) -> None:
        self.encoders: dict[Level, Encoder] = {level: encoders[level].eval() for level in LEVELS if level in encoders}
        self.sensor = sensor
        self.gsd = float(gsd if gsd is not None else sensor.gsd)
        self.origin = origin if origin is not None else Origin()
        self.name = name
        self.batch = 256
        self._check_encoders(encoders)
        self._backend: Backend = TorchBackend(self.encoders)
        if isinstance(teacher, Teacher):
            if teacher.dim != self.dim:
                raise ModelMismatch(f"The encoders give {self.dim} numbers, the teacher {teacher.name} {teacher.dim}.")
            self.teacher_name, self.teacher_fingerprint = teacher.name, teacher.fingerprint
            self.use_teacher(teacher)
        else:
            self.teacher_name, self.teacher_fingerprint = teacher if teacher is not None else ("", "")

    # --- what it is ---

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels that this model has, image before pixel."""
        return tuple(self.encoders)

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands that the encoders read, in order."""
        return self.sensor.bands

    @property
    def joint(self) -> bool:
        """Whether one encoder serves both levels with the same weights."""
        return len(self.encoders) > len({id(encoder) for encoder in self.encoders.values()})

    @property
    def has_teacher(self) -> bool:
        """Whether there is a teacher, so that text and photos can be asked for."""
        return bool(self.teacher_name)

    @property
    def chip_size(self) -> int:
        """Width and height of the chips in px."""
        return self._any.settings.image_size

    @property
    def patch_size(self) -> int:
        """Width and height of a patch in px: the resolution of `dense`."""
        return self._any.settings.patch_size

    @property
    def dim(self) -> int:
        """Length of the embeddings, the teacher's."""
        return self._any.settings.dim

    @property
    def fingerprint(self) -> str:
        """16 hex digits of SHA-256 over the weights as they are stored, the normalisation and the teacher.

        Computed anew each time, since training changes weights; about 0.1 s for a ViT-B/16.
        """
        sensor = self.sensor
        meaning = [sensor.bands, sensor.scale, sensor.offset, sensor.nodata, sensor.mean, sensor.std, self.gsd]
        return weights_digest(self.weights(), (json.dumps(meaning), self.teacher_fingerprint))

    @cached_property
    def teacher(self) -> Teacher:
        """The teacher that the encoders answer to, loaded when it is first asked for.

        Raises:
            NoTextEncoder: the model has no teacher.
            UnknownModel: the teacher cannot be found by its name.
            ModelMismatch: what that name loads has other weights than the teacher of the training.
        """
        if not self.has_teacher:
            raise NoTextEncoder(
                f"The model {self.name} has no teacher, so it knows neither words nor photos; its chips compare with "
                "each other only. Use a model that was trained on a teacher."
            )
        try:
            return self._checked(load_teacher(self.teacher_name))
        except UnknownModel as error:
            raise UnknownModel(
                f"The teacher of the model {self.name} is not found ({error}) Give the one that has the fingerprint "
                f"{self.teacher_fingerprint} by hand: load_model(..., teacher=load_teacher(folder))."
            ) from error

    def use_teacher(self, teacher: Teacher) -> None:
        """Take a teacher that is loaded already, or that lies elsewhere than its name in the model's folder says.

        Raises:
            ModelMismatch: it has other weights than the teacher of the training.
        """
        self.teacher = self._checked(teacher)

    def weights(self) -> dict[str, Tensor]:
        """The weights as a model folder stores them: float16, keys "image.*" and "pixel.*", or "joint.*" once."""
        stored: dict[str, Encoder] = {JOINT: self._any} if self.joint else dict(self.encoders.items())
        return {
            f"{level}.{key}": value.detach().to("cpu", torch.float16).contiguous()
            for level, encoder in stored.items()
            for key, value in encoder.state_dict().items()
        }

    # --- who computes ---

    @property
    def backend(self) -> str:
        """What computes the vectors: "torch", unless `use_backend` chose another."""
        return self._backend.name

    def use_backend(self, name: str = "auto", *, calibration: NDArray[Any] | None = None) -> str:
        """Let another library compute the vectors, from the weights as they are now.

        Args:
            name: "torch" (bfloat16 where the machine computes in it), "torch-fp32", "torch-bf16", "openvino",
                "openvino-int8", "onnx", "onnx-int8"; "auto" takes the fastest that is installed and keeps a cosine of
                0.999 to float32 on probe chips, int8 among them only where it is calibrated.
            calibration: chips, native values (N, C, S, S), over which the ranges of int8 are measured; some hundred of
                the kind that will be embedded.

        Returns:
            The name of the backend in use.

        Raises:
            MissingExtra: a package is not installed; the sentence names the extra.
            BadSetting: no backend has that name, or int8 has no chips to be calibrated on.
            ExportFailed: the library cannot compute these encoders, or gives other vectors than they do.
        """
        from geograft.models.inference.backends import open_backend

        self._backend = open_backend(self, name, calibration=calibration)
        return self._backend.name

    # --- chips ---

    def embed_chips(self, pixels: NDArray[Any], *, sensor: Sensor | None = None) -> NDArray[np.float32]:
        """One unit vector a chip, by the image level.

        Args:
            pixels: native values of chips, (N, C, S, S) with S the model's `chip_size`.
            sensor: what the pixels' bands mean where it is not the model's own sensor; the model's bands are
                picked by name and brought to its scale.

        Returns:
            (N, D) float32.

        Raises:
            ModelMismatch: the model has no image level, lacks one of its bands, or the size differs.
        """
        self.encoder("image")
        return self._in_batches(pixels, sensor, self._backend.embed, (self.dim,))

    def dense(
        self, pixels: NDArray[Any], *, level: Level = "pixel", sensor: Sensor | None = None
    ) -> NDArray[np.float32]:
        """One unit vector a patch.

        Args:
            pixels: native values of chips, (N, C, S, S) with S the model's `chip_size`.
            level: "pixel", or "image" for the image level read out at every patch.
            sensor: as in `embed_chips`.

        Returns:
            (N, D, h, w) float32, h = w = chip_size / patch_size.

        Raises:
            ModelMismatch: the model has no such level, lacks one of its bands, or the size differs.
        """
        grid = self.encoder(level).settings.grid
        backend = self._backend
        return self._in_batches(pixels, sensor, lambda x: backend.tokens(x, level=level), (self.dim, grid, grid))

    def encoder(self, level: Level) -> Encoder:
        """The encoder of a level.

        Raises:
            ModelMismatch: the model has no such level.
        """
        if level not in self.encoders:
            raise ModelMismatch(
                f"The model {self.name} has no {level} level, only {' and '.join(self.levels)}: "
                f"train it with --level {level}, or use another model."
            )
        return self.encoders[level]

    def match_bands(self, sensor: Sensor) -> tuple[int, ...]:
        """Where the model's bands stand among those of a sensor.

        Returns:
            One position in `sensor.bands` for each band of the model, in the model's order.

        Raises:
            ModelMismatch: the sensor lacks bands; the sentence lists them.
        """
        missing = [band for band in self.bands if band not in sensor.bands]
        if missing:
            raise ModelMismatch(
                f"The model {self.name} reads the bands {', '.join(self.bands)}, but {sensor.name} has only "
                f"{', '.join(sensor.bands)}: it lacks {', '.join(missing)}. Use a model trained on these bands."
            )
        return tuple(sensor.bands.index(band) for band in self.bands)

    def prepare(self, pixels: NDArray[Any], sensor: Sensor | None = None) -> NDArray[np.float32]:
        """The encoders' input: the model's bands of native pixels, normalised.

        A model of the sensor `rgb` takes pictures, so pixels of any other sensor become one by that sensor's own
        stretch (`Sensor.rgb`), whatever their bands; pixels without data become 0, the mean.

        Args:
            pixels: native values, (..., C, H, W).
            sensor: what the pixels' bands mean; the model's own where None.

        Returns:
            float32, (..., the model's bands, H, W).

        Raises:
            ModelMismatch: the sensor lacks bands.
            SensorMismatch: C is not the sensor's number of bands.
        """
        if sensor is None or sensor == self.sensor:
            return self.sensor.normalise(pixels)
        if self.sensor.name == DISPLAY != sensor.name:
            return self._from_picture(pixels, sensor)
        picked = list(self.match_bands(sensor))
        seen = dataclasses.replace(sensor, bands=self.bands, mean=self.sensor.mean, std=self.sensor.std)
        return seen.normalise(pixels[..., picked, :, :])

    def _from_picture(self, pixels: NDArray[Any], sensor: Sensor) -> NDArray[np.float32]:
        """The encoders' input of another sensor's pixels, by way of the picture that eyes would see."""
        flat = pixels.reshape(-1, *pixels.shape[-3:])
        pictures = [sensor.rgb(chip).transpose(2, 0, 1) for chip in flat]
        shape = (*pixels.shape[:-3], 3, *pixels.shape[-2:])
        values = self.sensor.normalise(np.array(pictures, np.uint8).reshape(shape))
        if sensor.nodata is not None:
            empty = np.isnan(pixels) if np.isnan(sensor.nodata) else pixels == sensor.nodata
            values[np.broadcast_to(empty.all(axis=-3, keepdims=True), values.shape)] = 0
        return values

    # --- text and photos ---

    def encode_text(self, texts: Sequence[str], templates: Sequence[str] = ("{}",)) -> NDArray[np.float32]:
        """One unit vector a text, in the space of the chips: the mean over phrasings, scaled to length 1.

        Args:
            texts: what is looked for.
            templates: phrasings with one `{}` each, such as "a photo of {}".

        Returns:
            (N, D) float32.

        Raises:
            BadQuery: no text, an empty one, or a template without `{}`.
            NoTextEncoder: the teacher encodes images only, or the model has none.
            ModelMismatch: the teacher's weights are not those of the training.
        """
        if not texts or not templates or not all(text.strip() for text in texts):
            raise BadQuery("Give at least one text and one template; a text must not be empty.")
        if bad := [template for template in templates if template.count("{}") != 1]:
            raise BadQuery(f"A template holds {{}} once, where the text goes; {bad[0]!r} does not.")
        phrases = [template.replace("{}", text) for text in texts for template in templates]
        vectors = self.teacher.encode_text(phrases).reshape(len(texts), len(templates), -1)
        return to_unit(torch.from_numpy(vectors.mean(axis=1)))

    # --- inside ---

    @property
    def _any(self) -> Encoder:
        """One of the encoders; all have the same shape outside."""
        return next(iter(self.encoders.values()))

    def _checked(self, teacher: Teacher) -> Teacher:
        """A teacher, if it is the one of the training."""
        if teacher.fingerprint != self.teacher_fingerprint:
            raise ModelMismatch(
                f"The model {self.name} was trained on the teacher {self.teacher_name} with the fingerprint "
                f"{self.teacher_fingerprint}, but {teacher.name} has {teacher.fingerprint}: "
                "their vectors do not compare. Use that teacher's weights, or train the model again."
            )
        return teacher

    def _check_encoders(self, given: Mapping[Level, Encoder]) -> None:
        """Refuse encoders that do not fit together or to the sensor."""
        if not self.encoders or len(self.encoders) != len(given):
            raise ModelMismatch(f"A model has encoders of the levels {' and '.join(LEVELS)}, not {list(given)}.")
        shapes = {(e.settings.bands, e.settings.image_size, e.settings.dim) for e in self.encoders.values()}
        if len(shapes) > 1:
            raise ModelMismatch("The image and the pixel level differ in bands, chip size or embedding length.")
        if self._any.settings.bands != self.sensor.bands:
            raise ModelMismatch(
                f"The encoders read {', '.join(self._any.settings.bands)}, but the sensor {self.sensor.name} has "
                f"{', '.join(self.sensor.bands)}, in this order."
            )

    def _in_batches(
        self,
        pixels: NDArray[Any],
        sensor: Sensor | None,
        encode: Callable[[NDArray[np.float32]], NDArray[np.float32]],
        shape: tuple[int, ...],
    ) -> NDArray[np.float32]:
        """`encode` over chips, batch by batch; `shape` is that of one chip's result."""
        result = np.empty((len(pixels), *shape), np.float32)
        for rows in self._batches(len(pixels)):
            result[rows] = encode(self.prepare(pixels[rows], sensor))
        return result

    def _batches(self, count: int) -> Iterator[slice]:
        """Slices that cover `count` rows."""
        yield from (slice(start, start + self.batch) for start in range(0, count, self.batch))

    def __repr__(self) -> str:
        """What the model is, on one line a fact."""
        return "\n".join(
            [
                f"Model({self.name!r}, fingerprint {self.fingerprint})",
                f"  levels   {', '.join(self.levels)}{' by one encoder' if self.joint else ''}",
                f"  sensor   {self.sensor.name}: {', '.join(self.bands)} at {self.gsd:g} m",
                f"  chips    {self.chip_size} px in patches of {self.patch_size} px",
                f"  encoder  {describe_encoder(self._any)} → {self.dim}",
                f"  teacher  {f'{self.teacher_name} ({self.teacher_fingerprint})' if self.has_teacher else 'none'}",
            ]
        )


def describe_encoder(encoder: Encoder) -> str:
    """An encoder's inside in a few words, as far as its settings say it."""
    shape = encoder.settings.to_dict()
    words = {"width": "width {}", "depth": "depth {}", "heads": "{} heads"}
    return ", ".join(text.format(shape[key]) for key, text in words.items() if key in shape) or type(encoder).__name__
