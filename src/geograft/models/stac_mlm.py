"""A model as a STAC item with the Machine Learning Model extension, so that catalogues of imagery find it.

The item says what goes in (bands, shape, scaling), what comes out, what ran it and which file it is. Its geometry is
where the training's photos lie, the whole world where the training did not note it, as the extension proposes.
Specification: https://github.com/stac-extensions/mlm, version 1.4.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geograft.models.model import DISPLAY, Model
from geograft.tables import versions

MLM_SCHEMA = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
RASTER_SCHEMA = "https://stac-extensions.github.io/raster/v1.1.0/schema.json"
FILE_SCHEMA = "https://stac-extensions.github.io/file/v2.1.0/schema.json"

_WORLD = (-180.0, -90.0, 180.0, 90.0)
_ALWAYS = ("1900-01-01T00:00:00Z", "9999-12-31T23:59:59Z")
"""How the extension's own examples say that a time is not known."""

_SPDX = {
    "apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-3-clause": "BSD-3-Clause", "cc0-1.0": "CC0-1.0",
    "cc-by-4.0": "CC-BY-4.0", "cc-by-sa-4.0": "CC-BY-SA-4.0", "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "cc-by-nc-sa-4.0": "CC-BY-NC-SA-4.0", "gpl-3.0": "GPL-3.0-only", "agpl-3.0": "AGPL-3.0-only",
}  # fmt: skip


@dataclass(frozen=True)
class ModelFile:
    """A file of a model folder that holds weights.

    Attributes:
        name: its name in the folder.
        content: its bytes, for size and checksum.
        kind: what made it: "safetensors", "onnx" or "openvino".
    """

    name: str
    content: bytes
    kind: str


_FRAMEWORKS = {"safetensors": "PyTorch", "onnx": "ONNX", "openvino": "OpenVINO"}
_PACKAGES = {"safetensors": "torch", "onnx": "onnx", "openvino": "openvino"}


def mlm_item(model: Model, files: Sequence[ModelFile], *, fingerprint: str | None = None) -> dict[str, Any]:
    """The item of a model as JSON values.

    Args:
        model: what the item is about.
        files: the weights' files, the main one first.
        fingerprint: what tables know the vectors by; the model's where None.
    """
    kind = files[0].kind
    bounds = tuple(float(value) for value in model.origin.training.get("bounds") or _WORLD)
    first, last = _times(model.origin.training.get("period"))
    properties: dict[str, Any] = {
        "title": model.name,
        "description": _description(model),
        "datetime": None,
        "start_datetime": first,
        "end_datetime": last,
        "gsd": model.gsd,
        **_licence(model.origin.licence),
        "mlm:name": _name(model.name),
        "mlm:architecture": "Vision Transformer",
        "mlm:tasks": ["similarity-search", *_task_of_maps(model)],
        "mlm:framework": _FRAMEWORKS[kind],
        **_version(_PACKAGES[kind]),
        "mlm:total_parameters": _parameters(model),
        **_pretrained(model),
        "mlm:accelerator": None,
        "mlm:accelerator_constrained": False,
        "mlm:input": [_input(model)],
        "mlm:output": _outputs(model),
        "mlm:hyperparameters": {**_hyperparameters(model), "fingerprint": fingerprint or model.fingerprint},
    }
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM_SCHEMA, RASTER_SCHEMA, FILE_SCHEMA],
        "id": re.sub(r"[^A-Za-z0-9_.-]+", "-", model.name) or "model",
        "geometry": _rectangle(bounds),
        "bbox": list(bounds),
        "properties": {key: value for key, value in properties.items() if value != {}},
        "links": [],
        "assets": {**_model_assets(files, _bands(model)), **_documents()},
    }


# --- what goes in and comes out ---------------------------------------------------------------------------


def _bands(model: Model) -> dict[str, Any]:
    """The bands that the input names, as STAC 1.1 and, for readers of 1.0, the raster extension describe them."""
    sensor = model.sensor
    about: dict[str, Any] = {"data_type": np.dtype(sensor.dtype).name}
    if sensor.nodata is not None:
        about["nodata"] = "nan" if np.isnan(sensor.nodata) else sensor.nodata
    packed = {"scale": sensor.scale, "offset": sensor.offset}
    return {
        "bands": [{"name": band, **about} for band in model.bands],
        "raster:bands": [{"name": band, **about, **packed} for band in model.bands],
    }


def _input(model: Model) -> dict[str, Any]:
    """The chips: their bands and shape, and how native values become the encoders' input."""
    sensor = model.sensor
    means = [(mean - sensor.offset) / sensor.scale for mean in sensor.mean]
    spreads = [std / abs(sensor.scale) for std in sensor.std]
    return {
        "name": "chips",
        "description": f"Chips of {sensor.name}, normalised band by band; pixels without data become 0.",
        "bands": list(model.bands),
        "input": {
            "shape": [-1, len(model.bands), model.chip_size, model.chip_size],
            "dim_order": ["batch", "channel", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [
            {"type": "z-score", "mean": round(mean, 6), "stddev": round(std, 6)}
            for mean, std in zip(means, spreads, strict=True)
        ],
        "resize_type": "crop",
        "pre_processing_function": {"format": "python", "expression": "geograft.models.model:Model.prepare"},
    }


def _outputs(model: Model) -> list[dict[str, Any]]:
    """The embeddings of chips and of patches."""
    grid = model.chip_size // model.patch_size
    found = []
    if "image" in model.levels:
        shape = {"shape": [-1, model.dim], "dim_order": ["batch", "embedding"], "data_type": "float32"}
        found.append(_output("chip embeddings", ["similarity-search"], shape, "One unit vector a chip."))
    if "pixel" in model.levels:
        order = ["batch", "embedding", "height", "width"]
        shape = {"shape": [-1, model.dim, grid, grid], "dim_order": order, "data_type": "float32"}
        words = f"One unit vector a patch of {model.patch_size} px."
        found.append(_output("patch embeddings", ["similarity-search", *_task_of_maps(model)], shape, words))
    return found


def _output(name: str, tasks: list[str], shape: dict[str, Any], description: str) -> dict[str, Any]:
    """One output; it has no classes of its own, since words decide."""
    return {"name": name, "tasks": tasks, "result": shape, "description": description, "classification:classes": []}


def _task_of_maps(model: Model) -> list[str]:
    """Maps are what patches are for."""
    return ["semantic-segmentation"] if "pixel" in model.levels and model.has_teacher else []


# --- what it is -------------------------------------------------------------------------------------------


def _description(model: Model) -> str:
    """What the model is, in a sentence or two."""
    display = " Imagery of any sensor becomes its input by way of a picture." if model.sensor.name == DISPLAY else ""
    teacher = f"comparable with the text and photo vectors of {model.teacher_name}" if model.has_teacher else "of chips"
    return f"Embeddings of {model.sensor.name} chips at {model.gsd:g} m, {teacher}.{display}"


def _licence(licence: str) -> dict[str, str]:
    """The licence as SPDX names it, or STAC's word for others."""
    return {"license": _SPDX.get(licence.lower(), "other")} if licence else {}


def _name(name: str) -> str:
    """A name that the extension takes: it begins with a letter and has letters, digits, spaces, dots and dashes."""
    plain = re.sub(r"[^A-Za-z0-9_. -]+", "-", name).strip("_. -")
    plain = plain if re.match(r"[A-Za-z]", plain) else f"model {plain}".strip()
    return plain if len(plain) > 2 else f"model {plain}"


def _version(package: str) -> dict[str, str]:
    """The version of the library that made the file, as far as it has three numbers."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = versions().get(package) or version(package)
    except PackageNotFoundError:
        return {}
    match = re.match(r"\d+\.\d+\.\d+", found)
    return {"mlm:framework_version": match[0]} if match else {}


def _parameters(model: Model) -> int:
    """How many weights the encoders have; one that serves both levels counts once."""
    encoders = {id(encoder): encoder for encoder in model.encoders.values()}
    return sum(value.numel() for encoder in encoders.values() for value in encoder.state_dict().values())


def _pretrained(model: Model) -> dict[str, Any]:
    """What the weights started from; a model that was trained from nothing says so."""
    source = model.origin.training.get("pretrained")
    if source:
        return {"mlm:pretrained": True, "mlm:pretrained_source": str(source)}
    return {"mlm:pretrained": False, "mlm:pretrained_source": None} if model.origin.training else {}


def _hyperparameters(model: Model) -> dict[str, Any]:
    """What the extension has no field for, but a reader needs."""
    return {
        "levels": list(model.levels),
        "patch_size": model.patch_size,
        "embedding": model.dim,
        "teacher": model.teacher_name,
        "teacher_fingerprint": model.teacher_fingerprint,
    }


# --- where, when, which file ------------------------------------------------------------------------------


def _rectangle(bounds: Sequence[float]) -> dict[str, Any]:
    """West, south, east, north as a polygon, counter-clockwise."""
    west, south, east, north = bounds
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def _times(period: Sequence[Any] | None) -> tuple[str, str]:
    """First and last moment of a period of days or moments."""
    if not period:
        return _ALWAYS
    first, last = (str(moment) for moment in period)
    return _moment(first, "00:00:00Z"), _moment(last, "23:59:59Z")


def _moment(text: str, time: str) -> str:
    """A day or moment in ISO 8601 as a moment of UTC."""
    if len(text) == 10:
        return f"{text}T{time}"
    moment = re.sub(r"(\+00:00|Z)?$", "", text.replace(" ", "T"))
    return f"{moment}Z"


def _model_assets(files: Sequence[ModelFile], bands: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The weights' files as assets, with the bands that they read and what they can be checked by."""
    found = {}
    for number, file in enumerate(files):
        compiled = file.kind != "safetensors"
        found["model" if not number else file.name] = {
            "href": f"./{file.name}",
            "title": f"Weights ({_FRAMEWORKS[file.kind]})",
            "type": f"application/octet-stream; framework={_FRAMEWORKS[file.kind].lower()}",
            "roles": ["mlm:model", "mlm:compiled" if compiled else "mlm:weights"],
            "mlm:artifact_type": {"safetensors": "safetensors.torch.save"}.get(file.kind, file.kind),
            "file:size": len(file.content),
            "file:checksum": f"1220{hashlib.sha256(file.content).hexdigest()}",
            **bands,
        }
    return found


def _documents() -> Mapping[str, dict[str, Any]]:
    """The folder's other files."""
    return {
        "config": {"href": "./config.json", "type": "application/json", "roles": ["metadata"]},
        "card": {"href": "./README.md", "type": "text/markdown", "roles": ["metadata", "documentation"]},
    }
