"""From a photo to a teacher's input: resize, centre crop, scale, normalise, exactly as CLIP's own code does.

Without torchvision, and without a processor class for each family: the few settings are read from transformers'
`preprocessor_config.json` or from a `preprocess.yaml` beside an exported file.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geograft.errors import CheckpointMismatch, MissingInput

Resize = Literal["crop", "squash", "none"]

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the photos that CLIP was trained on, red, green, blue."""

_FILTER_NAMES = {int(value): name for name, value in _FILTERS.items()}


@dataclasses.dataclass(frozen=True)
class PhotoPreprocess:
    """What happens to a photo before an encoder sees it.

    Attributes:
        size: rows and columns of the encoder's input, px.
        mean: subtracted from each channel after scaling to 0..1, in channel order.
        std: divides each channel after that.
        resize: "crop" scales the shorter edge to `edge` and cuts the middle; "squash" scales both edges to
            `size`; "none" only cuts (or pads) the middle.
        edge: length of the shorter edge before the cut, px; the smaller of `size` where None.
        resample: "nearest", "bilinear", "bicubic" or "lanczos"; wide enough to smooth when shrinking.
        layout: "nchw" or "nhwc".
        channels: "rgb" or "bgr".
        scale: multiplies the 8-bit values first.
    """

    size: tuple[int, int]
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    resize: Resize = "crop"
    edge: int | None = None
    resample: str = "bicubic"
    layout: str = "nchw"
    channels: str = "rgb"
    scale: float = 1 / 255

    def __post_init__(self) -> None:
        """Refuse settings that no photo can follow."""
        choices = {
            "resize": ("crop", "squash", "none"),
            "resample": tuple(_FILTERS),
            "layout": ("nchw", "nhwc"),
            "channels": ("rgb", "bgr"),
        }
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                raise CheckpointMismatch(f"{field} must be one of {', '.join(allowed)}, not {getattr(self, field)!r}.")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0 or min(self.size) < 1:
            raise CheckpointMismatch("Preprocessing needs a positive size, three means and three positive stds.")

    @property
    def digest(self) -> str:
        """SHA-256 over the settings, hex."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def __call__(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Inputs of an encoder.

        Args:
            images: photos of any size and mode.

        Returns:
            float32, (N, 3, H, W) or (N, H, W, 3) by `layout`.
        """
        pixels = np.stack([np.asarray(self._fit(image)) for image in images])
        if self.channels == "bgr":
            pixels = pixels[..., ::-1]
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        values = (pixels.astype(np.float32) * np.float32(self.scale) - mean) / std
        if self.layout == "nhwc":
            return values
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))

    def _fit(self, image: Image.Image) -> Image.Image:
        """One photo as RGB of the input's size."""
        image = image.convert("RGB")
        rows, columns = self.size
        if self.resize == "squash":
            return image.resize((columns, rows), _FILTERS[self.resample])
        if self.resize == "crop":
            image = image.resize(self._scaled(image), _FILTERS[self.resample])
        left, top = (image.width - columns) // 2, (image.height - rows) // 2
        return image.crop((left, top, left + columns, top + rows))

    def _scaled(self, image: Image.Image) -> tuple[int, int]:
        """Width and height with the shorter edge at its length, the longer one rounded down."""
        edge = self.edge or min(self.size)
        short, long = sorted(image.size)
        longer = int(edge * long / short)
        return (edge, longer) if image.width <= image.height else (longer, edge)


@dataclasses.dataclass(frozen=True)
class NaflexPreprocess:
    """What happens to a photo before SigLIP 2 of native aspect ratio (NaFlex) sees it (Tschannen et al., 2025, 2.2).

    The photo is scaled, its shape kept but for rounding, until its patches are as many as are allowed.

    Attributes:
        patch_size: patch width and height, px.
        patches: patches of a photo at most; photos with fewer are filled up with zeros.
        mean: subtracted from each channel after scaling to 0..1, in channel order.
        std: divides each channel after that.
        resample: as in `PhotoPreprocess`.
        scale: multiplies the 8-bit values first.
    """

    patch_size: int
    patches: int
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    resample: str = "bilinear"
    scale: float = 1 / 255

    @property
    def digest(self) -> str:
        """SHA-256 over the settings, hex."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()

    def __call__(
        self, images: Sequence[Image.Image]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Inputs of an encoder.

        Args:
            images: photos of any size and mode.

        Returns:
            Patches (N, P, patch_size² · 3), 1 where a patch is of the photo (N, P), and each photo's rows and
            columns of patches (N, 2).
        """
        pixels = np.zeros((len(images), self.patches, self.patch_size**2 * 3), np.float32)
        mask = np.zeros((len(images), self.patches), np.int64)
        shapes = np.array([self.shape(image.height, image.width) for image in images], np.int64).reshape(-1, 2)
        for number, (image, (rows, columns)) in enumerate(zip(images, shapes, strict=True)):
            pixels[number, : rows * columns] = self._patches(image, int(rows), int(columns))
            mask[number, : rows * columns] = 1
        return pixels, mask, shapes

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of a photo: those of the largest scale that gives no more than allowed."""

        def at(scale: float) -> tuple[int, int]:
            rows, columns = (math.ceil(side * scale / self.patch_size) for side in (height, width))
            return max(rows, 1), max(columns, 1)

        low, high = 1e-6, 100.0
        while high - low >= 1e-5:
            middle = (low + high) / 2
            low, high = (middle, high) if math.prod(at(middle)) <= self.patches else (low, middle)
        return at(low)

    def _patches(self, image: Image.Image, rows: int, columns: int) -> NDArray[np.float32]:
        """The normalised patches of one photo, row by row, (rows · columns, patch_size² · 3)."""
        size = self.patch_size
        pixels = np.asarray(image.convert("RGB").resize((columns * size, rows * size), _FILTERS[self.resample]))
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        values = (pixels.astype(np.float32) * np.float32(self.scale) - mean) / std
        return values.reshape(rows, size, columns, size, 3).swapaxes(1, 2).reshape(rows * columns, -1)


# --- transformers' files ----------------------------------------------------------------------------------


def read_preprocessor(folder: Path) -> PhotoPreprocess:
    """The preprocessing of a model folder in transformers' format.

    Args:
        folder: holds `preprocessor_config.json`, or `processor_config.json` with an `image_processor`.

    Raises:
        CheckpointMismatch: neither file is there, or it asks for something else than resizing, centre crop,
            scaling and normalising.
    """
    settings = _processor_settings(folder)
    try:
        return _from_transformers(settings)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointMismatch(f"The image processor of {folder} cannot be followed ({error!r}).") from error


def _processor_settings(folder: Path) -> dict[str, Any]:
    """The image processor's settings of either file that transformers writes."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            found: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise CheckpointMismatch(f"{path} is not a JSON object ({error}): copy the model folder again.") from error
        if name == "preprocessor_config.json":
            return found
        if "image_processor" in found:
            return dict(found["image_processor"])
    raise CheckpointMismatch(
        f"{folder} has no preprocessor_config.json: save the model's image processor into the folder as well."
    )


def _from_transformers(settings: dict[str, Any]) -> PhotoPreprocess:
    """CLIP's and SigLIP's image processors in this module's words."""
    size, crop = settings.get("size", {"shortest_edge": 224}), settings.get("crop_size", 224)
    size = {"shortest_edge": size} if isinstance(size, int) else dict(size)
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else dict(crop or {})
    if not settings.get("do_resize", True):
        resize: Resize = "none"
    else:
        resize = "crop" if "shortest_edge" in size else "squash"
    target = size if resize == "squash" else crop
    normalise = settings.get("do_normalize", True)
    return PhotoPreprocess(
        size=(int(target["height"]), int(target["width"])),
        mean=tuple(settings["image_mean"]) if normalise else (0.0, 0.0, 0.0),
        std=tuple(settings["image_std"]) if normalise else (1.0, 1.0, 1.0),
        resize=resize,
        edge=int(size["shortest_edge"]) if resize == "crop" else None,
        resample=_FILTER_NAMES[int(settings.get("resample", 3))],
        scale=float(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 1.0,
    )


def read_naflex(folder: Path) -> NaflexPreprocess:
    """The preprocessing of a SigLIP 2 of native aspect ratio in transformers' format.

    Raises:
        CheckpointMismatch: the folder has no image processor, or one of another kind.
    """
    settings = _processor_settings(folder)
    try:
        return NaflexPreprocess(
            patch_size=int(settings["patch_size"]),
            patches=int(settings["max_num_patches"]),
            mean=tuple(settings["image_mean"]) if settings.get("do_normalize", True) else (0.0, 0.0, 0.0),
            std=tuple(settings["image_std"]) if settings.get("do_normalize", True) else (1.0, 1.0, 1.0),
            resample=_FILTER_NAMES[int(settings.get("resample", 2))],
            scale=float(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 1.0,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointMismatch(f"The image processor of {folder} cannot be followed ({error!r}).") from error


# --- our own file -----------------------------------------------------------------------------------------


def read_spec(path: Path) -> tuple[PhotoPreprocess, dict[str, Any]]:
    """The preprocessing of a YAML file beside an exported encoder, and the entries that are not preprocessing.

    Raises:
        MissingInput: there is no such file; the sentence shows what it must say.
        CheckpointMismatch: it is not YAML, or its values cannot be followed.
    """
    import yaml

    if not path.is_file():
        raise MissingInput(
            f"There is no {path}: write what the encoder expects, for example\n"
            "  size: 224\n  resize: crop\n  mean: [0.485, 0.456, 0.406]\n  std: [0.229, 0.224, 0.225]\n  layout: nchw"
        )
    try:
        entries = dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise CheckpointMismatch(f"{path} is not a preprocessing specification ({error}).") from error
    names = {field.name for field in dataclasses.fields(PhotoPreprocess)}
    known = {key: value for key, value in entries.items() if key in names}
    return spec_of(known, source=str(path)), {key: value for key, value in entries.items() if key not in names}


def spec_of(entries: Mapping[str, Any], *, source: str) -> PhotoPreprocess:
    """The preprocessing of plain values, as a `preprocess.yaml` has them.

    Raises:
        CheckpointMismatch: they cannot be followed; the sentence calls them by `source`.
    """
    known: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in entries.items()}
    if isinstance(known.get("size"), int):
        known["size"] = (known["size"], known["size"])
    try:
        return PhotoPreprocess(**known)
    except (TypeError, ValueError) as error:
        raise CheckpointMismatch(f"{source} is not a preprocessing specification ({error}).") from error


def clip_preprocess(size: int, said: Mapping[str, Any] | None = None, *, source: str = "CLIP") -> PhotoPreprocess:
    """CLIP's own preprocessing at an image size, but for what a checkpoint says of its own.

    Args:
        size: rows and columns of the input, px.
        said: entries as a `preprocess.yaml` has them, or None.
        source: what an error calls them.
    """
    spec = spec_of({"size": size, "mean": CLIP_MEAN, "std": CLIP_STD} | dict(said or {}), source=source)
    return dataclasses.replace(spec, edge=min(spec.size)) if spec.resize == "crop" and spec.edge is None else spec
