"""A model: satellite encoders of one or both levels, the bands they read, and the teacher that they answer to.

What a user holds. Pixels go in as a scene stores them; unit vectors come out as numpy arrays, comparable with the
teacher's text and photo vectors and with those of no other teacher, which the fingerprints guarantee.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geograft.errors import BadQuery, ModelMismatch
from geograft.models.numerics import inference, to_unit, weights_digest
from geograft.models.satellite import LEVELS, Level, SatelliteEncoder
from geograft.models.teacher import Teacher, load_teacher
from geograft.sensors import Sensor

FORMAT = 1
"""Version of the model folder's layout."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a model comes from: kept in its folder and printed on its card.

    Attributes:
        training: how it was trained: data, settings, command, seed.
        metrics: what was measured on it, name to value.
    """

    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Model:
    """Satellite encoders with the text encoder that they answer to.

    Args:
        encoders: level ("image", "pixel") to encoder, one or both, of equal bands, size and embedding length.
        sensor: what the encoders' bands mean; its mean and std normalise their input.
        teacher: the teacher that the encoders were trained on, or its name and fingerprint, in which case it
            is loaded when text or photos are asked for.
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
        encoders: Mapping[Level, SatelliteEncoder],
        *,
        sensor: Sensor,
        teacher: Teacher | tuple[str, str],
        gsd: float | None = None,
        origin: Origin | None = None,
        name: str = "unnamed",
    ) -> None:
        self.encoders: dict[Level, SatelliteEncoder] = {
            level: encoders[level].eval() for level in LEVELS if level in encoders
        }
        self.sensor = sensor
        self.gsd = float(gsd if gsd is not None else sensor.gsd)
        self.origin = origin if origin is not None else Origin()
        self.name = name
        self.batch = 256
        self._check_encoders(encoders)
        if isinstance(teacher, Teacher):
            if teacher.dim != self.dim:
                raise ModelMismatch(f"The encoders give {self.dim} numbers, the teacher {teacher.name} {teacher.dim}.")
            self.teacher_name, self.teacher_fingerprint = teacher.name, teacher.fingerprint
            self.use_teacher(teacher)
        else:
            self.teacher_name, self.teacher_fingerprint = teacher

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
            UnknownModel: the teacher cannot be found by its name.
            ModelMismatch: what that name loads has other weights than the teacher of the training.
        """
        return self._checked(load_teacher(self.teacher_name))

    def use_teacher(self, teacher: Teacher) -> None:
        """Take a teacher that is loaded already, or that lies elsewhere than its name in the model's folder says.

        Raises:
            ModelMismatch: it has other weights than the teacher of the training.
        """
        self.teacher = self._checked(teacher)

    def weights(self) -> dict[str, Tensor]:
        """The weights as a model folder stores them: float16, keys "image.*" and "pixel.*"."""
        return {
            f"{level}.{key}": value.detach().to("cpu", torch.float16).contiguous()
            for level, encoder in self.encoders.items()
            for key, value in encoder.state_dict().items()
        }

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
        encoder = self.encoder("image")
        return self._in_batches(pixels, sensor, encoder.embed, (self.dim,))

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
        encoder = self.encoder(level)
        grid = encoder.settings.grid
        return self._in_batches(pixels, sensor, lambda x: encoder.tokens(x, level=level), (self.dim, grid, grid))

    def encoder(self, level: Level) -> SatelliteEncoder:
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
        picked = list(self.match_bands(sensor))
        seen = dataclasses.replace(sensor, bands=self.bands, mean=self.sensor.mean, std=self.sensor.std)
        return seen.normalise(pixels[..., picked, :, :])

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
            NoTextEncoder: the teacher encodes images only.
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
    def _any(self) -> SatelliteEncoder:
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

    def _check_encoders(self, given: Mapping[Level, SatelliteEncoder]) -> None:
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
        self, pixels: NDArray[Any], sensor: Sensor | None, encode: Any, shape: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """`encode` over chips, batch by batch; `shape` is that of one chip's result."""
        result = np.empty((len(pixels), *shape), np.float32)
        device = next(self._any.parameters()).device
        with inference(device):
            for rows in self._batches(len(pixels)):
                chips = torch.from_numpy(self.prepare(pixels[rows], sensor)).to(device)
                result[rows] = to_unit(encode(chips))
        return result

    def _batches(self, count: int) -> Iterator[slice]:
        """Slices that cover `count` rows."""
        yield from (slice(start, start + self.batch) for start in range(0, count, self.batch))

    def __repr__(self) -> str:
        """What the model is, on one line a fact."""
        encoder = self._any.settings
        return (
            f"Model({self.name!r}, fingerprint {self.fingerprint})\n"
            f"  levels   {', '.join(self.levels)}\n"
            f"  sensor   {self.sensor.name}: {', '.join(self.bands)} at {self.gsd:g} m\n"
            f"  chips    {self.chip_size} px in patches of {self.patch_size} px\n"
            f"  encoder  width {encoder.width}, depth {encoder.depth}, {encoder.heads} heads → {self.dim}\n"
            f"  teacher  {self.teacher_name} ({self.teacher_fingerprint})"
        )
