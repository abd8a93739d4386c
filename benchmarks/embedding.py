"""Chips of 224 px embedded by a ViT-B/16 per second: the best backend against plain transformers in float32.

Run: python benchmarks/embedding.py --json
The weights are random, so the speed is that of the trained model, but the outliers that the activations of trained
transformers have are absent: int8 keeps a higher cosine here than it may on a trained model. `geograft export` measures
that on the model and chips themselves, and `auto` uses int8 only where it holds.

- ours: the backend that `Model.use_backend("auto", calibration=...)` chooses here, by `Model.embed_chips` with all that
  it does (normalising uint8 pixels, unit vectors).
- peer: transformers' `CLIPVisionModelWithProjection` as it is loaded by default, float32, eager, on pixels that are
  normalised already; the better of two batch sizes.
- `backends`: all that are installed, each with its lowest cosine to float32 (`--all`).
- `cpu_ratio`: ours over peer in seconds of the processor instead of the clock's, which other work on the machine
  disturbs less.

Sides take turns; a rate is the median of the runs. Every backend must keep a cosine of 0.999, or the run fails.
"""

import argparse
import json
import logging
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CLIPVisionModelWithProjection

from geograft.errors import MissingExtra
from geograft.models.inference.eager import TorchBackend
from geograft.models.inference.parity import compare
from geograft.models.model import Model
from geograft.models.satellite import SatelliteEncoder, preset_settings
from geograft.sensors import get_sensor

NAMES = ("torch", "openvino", "onnx", "onnx-int8", "openvino-int8")


def make_model(seed: int) -> Model:
    """A ViT-B/16 of the image level with random weights that are spread so that chips get different vectors."""
    torch.manual_seed(seed)
    sensor = get_sensor("rgb")
    encoder = SatelliteEncoder(preset_settings("vit-b-16", bands=sensor.bands, dim=512))
    with torch.no_grad():
        for value in encoder.parameters():
            if value.ndim > 1:
                value.mul_(1.5)
    return Model({"image": encoder}, sensor=sensor, teacher=None, name="vit-b-16")


def make_chips(count: int, seed: int) -> NDArray[np.uint8]:
    """Chips of soft shapes with noise, uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(100, 50, (count, 3, 14, 14)).repeat(16, axis=2).repeat(16, axis=3)
    return (coarse + rng.normal(0, 15, coarse.shape)).clip(0, 255).astype(np.uint8)


def peer(model: Model) -> CLIPVisionModelWithProjection:
    """Transformers' own model with the same weights."""
    backbone = model.encoders["image"].satellite_image_backbone  # type: ignore[attr-defined]
    values = {key: value for key, value in backbone.config.to_dict().items() if "attn" not in key}
    plain = CLIPVisionModelWithProjection(type(backbone.config)(**values)).eval()
    plain.load_state_dict(backbone.state_dict())
    return plain


def peer_side(plain: CLIPVisionModelWithProjection, pixels: NDArray[np.float32], batch: int) -> Callable[[], Any]:
    """A run of the peer over normalised pixels."""

    def run() -> NDArray[np.float32]:
        with torch.inference_mode():
            parts = [
                plain(pixel_values=torch.from_numpy(pixels[start : start + batch])).image_embeds
                for start in range(0, len(pixels), batch)
            ]
        vectors = torch.nn.functional.normalize(torch.cat(parts), dim=1)
        found: NDArray[np.float32] = vectors.numpy()
        return found

    return run


def our_sides(model: Model, chips: NDArray[np.uint8], calibration: NDArray[np.uint8], *, every: bool) -> dict[str, Any]:
    """Runs of the backends, by name; the first is the one that is chosen."""
    sides: dict[str, Any] = {}
    chosen = model.use_backend("auto", calibration=calibration)
    for name in dict.fromkeys((chosen, *(NAMES if every else ()))):
        try:
            if model.backend != name:
                model.use_backend(name, calibration=calibration if name.endswith("int8") else None)
        except MissingExtra as error:
            print(error, file=sys.stderr)
            continue
        sides[name] = _embedding(model, model._backend, chips)  # noqa: SLF001 - several backends of one model take turns
    return sides


def _embedding(model: Model, backend: Any, chips: NDArray[np.uint8]) -> Callable[[], NDArray[np.float32]]:
    """A run of a backend."""

    def run() -> NDArray[np.float32]:
        model._backend = backend  # noqa: SLF001
        return model.embed_chips(chips)

    return run


def measure(given: argparse.Namespace) -> dict[str, object]:
    """Rates of all sides on the same chips."""
    if given.threads:
        torch.set_num_threads(given.threads)
    model, chips = make_model(given.seed), make_chips(given.chips, given.seed)
    expected = TorchBackend(model.encoders, bf16=False).embed(model.prepare(chips))
    ours = our_sides(model, chips, make_chips(given.calibration, given.seed + 1), every=given.all)
    plain, pixels = peer(model), model.prepare(chips)
    peers = {f"peer batch {batch}": peer_side(plain, pixels, batch) for batch in (1, given.chips)}
    wall, cpu, cosines = _run({**ours, **peers}, expected, given.runs, len(chips))
    best, base = max(ours, key=wall.__getitem__), max(peers, key=wall.__getitem__)
    return {
        "name": "embedding", "ours": wall[best], "peer": wall[base], "ratio": round(wall[best] / wall[base], 2),
        "unit": "images/s", "machine": _machine(), "backend": best, "peer_batch": base.removeprefix("peer batch "),
        "cosine_min": cosines[best], "cpu_ratio": round(cpu[best] / max(cpu[name] for name in peers), 2),
        "backends": {name: {"images/s": wall[name], "cosine_min": cosines[name]} for name in ours},
        "chips": len(chips), "runs": given.runs, "weights": "random",
    }  # fmt: skip


def _run(
    sides: dict[str, Callable[[], NDArray[np.float32]]], expected: NDArray[np.float32], runs: int, count: int
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Median images/s by the clock and by the processor, and lowest cosine, of sides that take turns."""
    wall: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    cosines = {}
    for number in range(runs + 1):
        for name, work in sides.items():
            start, used = time.perf_counter(), time.process_time()
            vectors = work()
            if number:  # the first run warms up
                wall[name].append(count / (time.perf_counter() - start))
                cpu[name].append(count / (time.process_time() - used))
            cosines[name] = round(compare(expected, vectors).cosine_min, 5)
            if cosines[name] < 0.999:
                raise SystemExit(f"{name} gives other vectors: cosine {cosines[name]}")
    medians = ({name: round(statistics.median(rates), 2) for name, rates in part.items()} for part in (wall, cpu))
    return (*medians, cosines)  # type: ignore[return-value]


def _machine() -> str:
    """The machine, in words."""
    can = [name for name in ("avx512_bf16", "avx512_vnni", "amx_int8") if torch.cpu.get_capabilities().get(name)]
    threads = f"{torch.get_num_threads()} threads"
    return f"{platform.machine()} ({', '.join(can)}), {os.cpu_count()} cores, {threads}, torch {torch.__version__}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--all", action="store_true", help="every backend that is installed, not only the chosen one")
    parser.add_argument("--chips", type=int, default=8, help="chips a run, and the peer's larger batch")
    parser.add_argument("--calibration", type=int, default=48, help="chips that int8 is calibrated on")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="of all sides; the cores where 0")
    parser.add_argument("--seed", type=int, default=0, help="of weights and chips")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    result = measure(given)
    print(json.dumps(result) if given.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
