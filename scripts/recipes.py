"""Recipes of training side by side on World-1: the same encoder, epochs and seeds, judged on the test regions.

    python scripts/recipes.py --work work/mini --recipes faithful mixture heading best --seeds 0 1 2

Reads the regions and pairs that `scripts/train_mini.py --stage regions pairs-1m pairs-10m` made. Every run is written
to `<work>/recipes/<recipe>-<seed>`, resumed where it was killed, and skipped where its `result.json` is there; the
table of all results is printed at the end. `--diagnose` adds what a linear probe reads from the same patches, and
what is taken for what.
"""

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from geograft.evaluate.diagnosis import diagnose
from geograft.evaluate.methods import graft_method
from geograft.evaluate.regions import RegionView, load_region
from geograft.evaluate.world1 import class_words, evaluate_method, find_region
from geograft.models.checkpoints import load_model
from geograft.models.model import Model
from geograft.models.satellite import PRESETS
from geograft.training.losses import LossVariant
from geograft.training.oracle import load_oracle, shipped_oracle
from geograft.training.places import PlaceSettings
from geograft.training.trainer import TrainingSettings, train
from geograft.world.region import WORLD_1

logger = logging.getLogger("recipes")

SMALL: dict[str, Any] = {"image_size": 64, "patch_size": 8, "width": 96, "depth": 4, "heads": 3}
"""An encoder that a recipe is tried with in minutes; `--preset mini` takes the shipped one's shape."""

STRIDE = {"1m": 1.0, "10m": 0.5}
PER_CLASS, SIZE_M = 60, 4000
SHOWN = ("miou", "top1", "map100", "pixel_accuracy")

POINT = {"level": "pixel", "method": "point", "alike": 0.0, "smooth": 0.0}
MIXTURE = {"level": "pixel", "alike": 0.0, "smooth": 0.0}
HERE = PlaceSettings(reach_m=0.0)
RECIPES: dict[str, dict[str, Any]] = {
    "faithful": {**POINT, "sampling": "nearest"},
    "bilinear": {**POINT, "sampling": "bilinear"},
    "point-alike": {**POINT, "sampling": "nearest", "alike": 0.05},
    "point-soft": {**POINT, "sampling": "nearest", "variant": LossVariant(soft_weight=0.3)},
    "mixture": {**MIXTURE, "place": HERE, "temperature": 0.07},
    "heading": {**MIXTURE, "temperature": 0.07},
    "alike": {**MIXTURE, "temperature": 0.07, "alike": 0.05},
    "warm": {**MIXTURE, "alike": 0.05},
    "best": {"level": "pixel"},
    "image": {"level": "image", "alike": 0.0},
    "image-alike": {"level": "image"},
    "joint": {"level": "joint"},
}
"""Name to what differs from the defaults: from the published rule to the default, one idea after the other."""


def main() -> None:
    """Train what is not trained yet, judge it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work/mini"), help="folder of regions and pairs")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=["faithful", "mixture", "heading", "best"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--sensors", nargs="+", choices=list(STRIDE), default=["1m"], help="both train one encoder")
    parser.add_argument("--preset", default="small", help="small, or a preset of the package")
    parser.add_argument("--regions", choices=("validation", "test"), default="test", help="where it is judged")
    parser.add_argument("--diagnose", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    torch.set_num_threads(options.threads)
    PRESETS["small"] = SMALL
    results = [_run(recipe, seed, options) for recipe in options.recipes for seed in options.seeds]
    sys.stdout.write(_table(results))


def _run(recipe: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One training and what it reaches, by sensor."""
    sensors = "+".join(options.sensors)
    out = options.work / "recipes" / f"{recipe}-{sensors}-{options.preset}-{options.epochs}-{seed}"
    note = out / f"{options.regions}{'-diagnosis' if options.diagnose else ''}.json"
    if note.is_file():
        return dict(json.loads(note.read_text()))
    settings = TrainingSettings(preset=options.preset, epochs=options.epochs, seed=seed, **RECIPES[recipe])
    if options.sensors == ["10m"]:
        PRESETS[options.preset] = {**PRESETS[options.preset], "image_size": 32, "patch_size": 4}
    pairs, check = ([options.work / "pairs" / f"{part}-{name}" for name in options.sensors]
                    for part in ("train", "validation"))  # fmt: skip
    summary = train(pairs, out, settings=settings, validation=check)
    found: dict[str, Any] = {"recipe": recipe, "seed": seed, "settings": dataclasses.asdict(settings)}
    found["seconds"] = summary.seconds
    for name in options.sensors:
        folder = out if len(options.sensors) == 1 else out / f"world-{name}"
        found[name] = _judge(load_model(folder), name, options)
    note.write_text(json.dumps(found, indent=1, default=str) + "\n")
    return found


def _judge(model: Model, sensor: str, options: argparse.Namespace) -> dict[str, Any]:
    """Means over the regions."""
    words, views = class_words(model), _views(options, options.regions, model, sensor)
    found: dict[str, Any] = {}
    for level in model.levels:
        method = graft_method(model, level, {"seen": words["seen"]})
        rows = [row for view in views for row in evaluate_method(method, view)[0]]
        found |= {f"{level}.{name}": mean(r.value for r in rows if r.metric == name) for name in SHOWN}
    if options.diagnose:
        probe = _views(options, "validation", model, sensor)
        oracle = load_oracle(shipped_oracle(sensor))
        about = diagnose(model, regions=views, probe_regions=probe, words=words["seen"], oracle=oracle)
        found["diagnosis"] = about.to_markdown()
    return found


def _views(options: argparse.Namespace, purpose: str, model: Model, sensor: str) -> list[RegionView]:
    """The regions of a purpose as chips of a model."""
    if purpose == "test":
        folders = [find_region(options.work / "world1", seed, SIZE_M) for seed in WORLD_1["test"]]
    else:
        folders = [options.work / "regions" / f"{purpose}-{seed}" for seed in WORLD_1[purpose]]
    chip = (model.chip_size, round(model.chip_size * STRIDE[sensor]))
    return [load_region(folder, f"world-{sensor}", chip=chip, per_class=PER_CLASS) for folder in folders]


def _table(results: list[dict[str, Any]]) -> str:
    """Mean over seeds and their range, a row a recipe."""
    rows = ["| recipe | seeds | " + " | ".join(SHOWN) + " |", "|---|---|" + "---:|" * len(SHOWN)]
    for recipe in dict.fromkeys(one["recipe"] for one in results):
        same = [one for one in results if one["recipe"] == recipe]
        for sensor in (key for key in same[0] if key in STRIDE):
            for level in dict.fromkeys(key.split(".")[0] for key in same[0][sensor] if "." in key):
                cells = [_cell([one[sensor][f"{level}.{name}"] for one in same]) for name in SHOWN]
                rows.append(f"| {recipe}, {sensor}, {level} | {len(same)} | " + " | ".join(cells) + " |")
    notes = [f"\n{one['recipe']}, seed {one['seed']}, {key}\n\n{value['diagnosis']}\n"
             for one in results for key, value in one.items()
             if isinstance(value, Mapping) and "diagnosis" in value]  # fmt: skip
    return "\n".join([*rows, "", *notes])


def _cell(values: list[float]) -> str:
    """Per cent: the mean, and the range of several."""
    shown = f"{100 * mean(values):.1f}"
    return f"{shown} ({100 * min(values):.1f}–{100 * max(values):.1f})" if len(values) > 1 else shown


if __name__ == "__main__":
    main()
