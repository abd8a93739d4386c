"""Model folders whose weights are a graph, for machines without PyTorch's speed or without PyTorch's weights.

An export answers as the model does, which is measured before anything gets its final name: the vectors of probe chips
by the graph are held against those of the model in float32.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geograft.errors import BadSetting, ModelMismatch, OutputExists
from geograft.models.card import model_card
from geograft.models.checkpoints import CARD, CONFIG, ITEM, config_of, to_json
from geograft.models.inference.backends import GraphBackend, OnnxRunner, OpenVinoRunner, Runner
from geograft.models.inference.eager import TorchBackend
from geograft.models.inference.exported import ExportedModel, file_digest
from geograft.models.inference.graphs import GraphPlan, plan_graphs, require, to_openvino, write_onnx
from geograft.models.inference.parity import PROBES, Parity, check_parity, measure_parity, probe_chips, rates
from geograft.models.inference.quantise import check_calibration, quantise_onnx, quantise_openvino
from geograft.models.model import Model
from geograft.models.stac_mlm import ModelFile, mlm_item
from geograft.tables import atomic, track

Format = Literal["onnx", "openvino"]


@dataclass(frozen=True)
class ExportSummary:
    """What `export_model` wrote, and how it compares with the model.

    Attributes:
        folder: the exported folder.
        format: "onnx" or "openvino".
        precision: "float" or "int8".
        fingerprint: what tables know the vectors by.
        mixes: whether that is the model's own, so that tables of both may be mixed and searched.
        files: name to bytes.
        parity: of the vectors with those of the model in float32.
        probes: "calibration", or "synthetic" where no chips were given.
        images_per_second: chips that the export embeds in a second here.
        torch_images_per_second: chips that the model embeds in a second with PyTorch here.
    """

    folder: Path
    format: Format
    precision: str
    fingerprint: str
    mixes: bool
    files: Mapping[str, int]
    parity: Parity
    probes: str
    images_per_second: float
    torch_images_per_second: float

    def lines(self) -> list[str]:
        """What people see."""
        size = sum(self.files.values()) / 1e6
        parity, faster = self.parity, self.images_per_second / self.torch_images_per_second
        mixing = "as the model's: tables of both may be mixed" if self.mixes else "its own: tables of both do not mix"
        cosines = f"min {parity.cosine_min:.5f}, median {parity.cosine_median:.5f}"
        tried = f"{parity.vectors} vectors of {self.probes} chips"
        return [
            f"{self.folder}: {self.format}, {self.precision}, {size:.1f} MB in {len(self.files)} files",
            f"cosine to float32: {cosines} ({tried}); largest difference {parity.max_difference:.4f}",
            f"{self.images_per_second:g} chips/s, PyTorch {self.torch_images_per_second:g} ({faster:.2f} times)",
            f"fingerprint {self.fingerprint}, {mixing}",
        ]


def export_model(
    model: Model,
    folder: str | Path,
    *,
    format: Format = "onnx",  # noqa: A002 - the field's word
    int8: bool = False,
    calibration: NDArray[Any] | None = None,
) -> ExportSummary:
    """Write a model as graphs of another library: a folder that `load_model` takes like any other.

    Args:
        model: what is exported, with its weights as they are now.
        folder: what to write; it must be empty or absent.
        format: "onnx" (onnxruntime and others; float32) or "openvino" (weights in float16).
        int8: 8-bit weights and activations; about twice as fast on processors that have such products.
        calibration: chips, native values of the model's sensor (N, C, S, S), of the kind that will be embedded. int8
            measures ranges on them, all but the last that parity is measured on; needed for OpenVINO's int8.

    Raises:
        MissingExtra: the extra of the format is not installed.
        BadSetting: there is no such format, or int8 has too few chips.
        OutputExists: the folder holds something.
        ExportFailed: the encoders do not become graphs, or the graphs give other vectors; nothing is written.
        ModelMismatch: the model is an export itself.
        DiskFull: the disk filled up; nothing stays behind.
    """
    folder = Path(folder)
    _check(model, folder, format)
    chips = None if calibration is None else model.prepare(calibration)
    ranges, probes = _parts(model, chips, needed=int8 and format == "openvino")
    with atomic(folder) as whole:
        whole.mkdir()
        runners = {
            plan.name: _write(plan, whole, format, ranges if int8 else None, int8=int8)
            for plan in track(plan_graphs(model.encoders), f"export to {format}")
        }
        name = f"{format}-int8" if int8 else format
        backend = GraphBackend(name, runners, model.encoders[model.levels[0]].settings)
        parity = measure_parity(model.encoders, TorchBackend(model.encoders, bf16=False), backend, probes)
        check_parity(parity, name)
        summary = _summary(model, folder, whole, backend, parity, (format, int8, chips is not None))
        _describe(model, whole, summary, name)
    return summary


def _check(model: Model, folder: Path, form: str) -> None:
    """Refuse what cannot be exported, before minutes go into it."""
    if form not in {"onnx", "openvino"}:
        raise BadSetting(f"Models are exported to onnx or openvino, not {form!r}.")
    if isinstance(model, ExportedModel):
        raise ModelMismatch(f"{model.name} is an export already: export the model that it was made of.")
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputExists(f"{folder} holds something already: name a new folder, or empty this one.")
    require(form, *(("onnx", "onnxruntime") if form == "onnx" else ("openvino",)))


def _parts(
    model: Model, chips: NDArray[np.float32] | None, *, needed: bool
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32]]:
    """Chips to measure ranges on, and others to measure parity on."""
    if chips is None:
        if needed:
            check_calibration(None)
        return None, probe_chips(model.encoders)
    if len(chips) < 2 * PROBES:
        raise BadSetting(f"Calibration takes at least {2 * PROBES} chips, better some hundred, not {len(chips)}.")
    return chips[:-PROBES], chips[-PROBES:]


def _write(plan: GraphPlan, folder: Path, form: Format, ranges: NDArray[np.float32] | None, *, int8: bool) -> Runner:
    """Write a graph, and open it as those will who read the folder."""
    if form == "onnx":
        path = folder / f"{plan.name}.onnx"
        first = path.with_name(".float.onnx") if int8 else path
        write_onnx(plan, first)
        if int8:
            quantise_onnx(first, path, ranges)
            first.unlink()
        return OnnxRunner(path)
    import openvino

    graph = to_openvino(plan)
    path = folder / f"{plan.name}.xml"
    openvino.save_model(quantise_openvino(graph, check_calibration(ranges)) if int8 else graph, path)
    return OpenVinoRunner(path)


def _summary(
    model: Model, folder: Path, whole: Path, backend: GraphBackend, parity: Parity, how: tuple[Format, bool, bool]
) -> ExportSummary:
    """What came of an export; its speed is measured beside the model's."""
    form, int8, real = how
    chips = probe_chips(model.encoders, 16)
    fast, slow = rates(model.encoders, (backend, TorchBackend(model.encoders)), chips)
    files = {path.name: path.stat().st_size for path in sorted(whole.iterdir())}
    mixes = parity.safe and (real or not int8)
    own = hashlib.sha256("".join(_digests(whole)).encode()).hexdigest()[:16]
    return ExportSummary(
        folder=folder,
        format=form,
        precision="int8" if int8 else "float",
        fingerprint=model.fingerprint if mixes else own,
        mixes=mixes,
        files=files,
        parity=parity,
        probes="calibration" if real else "synthetic",
        images_per_second=fast,
        torch_images_per_second=slow,
    )


def _digests(folder: Path) -> list[str]:
    """The digests of a folder's files, by name."""
    return [file_digest(path.read_bytes()) for path in sorted(folder.iterdir())]


def _describe(model: Model, folder: Path, summary: ExportSummary, backend: str) -> None:
    """Write configuration, card and item of an exported folder beside its graphs."""
    digests = dict(zip(summary.files, _digests(folder), strict=True))
    about = {
        "format": summary.format,
        "backend": backend,
        "precision": summary.precision,
        "of": model.fingerprint,
        "parity": {**dataclasses.asdict(summary.parity), "chips": summary.probes},
        "files": digests,
    }
    weights = sorted(summary.files, key=lambda name: name.endswith(".bin"))
    files = [ModelFile(name, (folder / name).read_bytes(), summary.format) for name in weights]
    config = {**config_of(model), "fingerprint": summary.fingerprint, "export": about}
    (folder / CONFIG).write_bytes(to_json(config))
    (folder / CARD).write_text(model_card(model, export=_facts(summary, model)), encoding="utf-8")
    (folder / ITEM).write_bytes(to_json(mlm_item(model, files, fingerprint=summary.fingerprint)))


def _facts(summary: ExportSummary, model: Model) -> dict[str, Any]:
    """What the card of an export says beyond the model's."""
    parity = summary.parity
    return {
        "format": summary.format,
        "precision": summary.precision,
        "exported from": f"the weights with the fingerprint {model.fingerprint}",
        "fingerprint": summary.fingerprint + (", the model's: tables of both may be mixed" if summary.mixes else ""),
        "cosine to the model in float32": f"min {parity.cosine_min:.5f}, median {parity.cosine_median:.5f}, "
        f"{parity.vectors} vectors of {summary.probes} chips",
        "largest difference": f"{parity.max_difference:.4f}",
    }
