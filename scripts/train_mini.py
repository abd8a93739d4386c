"""Everything that the package ships as weights, made from nothing: regions, teacher, pairs, encoders, oracles.

    python scripts/train_mini.py --work work/mini

Stages run in order and are skipped where they are done; a killed run goes on where it stopped. `--stage` runs some of
them only, so that two terminals can share the work (`teacher` beside `regions`; `pairs-1m model-1m` beside
`pairs-10m model-10m oracle-10m oracle-1m`, each with `--threads 1`).
Weights are installed into `src/geograft/assets` by the last stage. Takes about an hour on two idle cores.
"""

import argparse
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from geograft.models.checkpoints import load_model, save_model
from geograft.pairs.plan import PairSettings, make_pairs
from geograft.sources.photos import read_photos
from geograft.sources.scenes import read_scenes
from geograft.tables import Manifest, write_manifest
from geograft.training.oracle import OracleSettings, train_oracle
from geograft.training.teacher import TeacherSettings, train_teacher
from geograft.training.trainer import TrainingSettings, train
from geograft.world.region import WORLD_1, RegionSettings, make_region

logger = logging.getLogger("train_mini")

ASSETS = Path(__file__).resolve().parents[1] / "src" / "geograft" / "assets"
TEACHER_PHOTOS, TRAIN_PHOTOS = 7000, 5000
PRESETS = {"1m": "mini", "10m": "mini-10m"}
CHIPS = {"1m": 64, "10m": 32}
EPOCHS = {"1m": 8, "10m": 24}
ORACLE_EPOCHS = {"1m": 6, "10m": 30}


@dataclass(frozen=True)
class Run:
    """Where things lie, and the seed of everything random."""

    work: Path
    seed: int

    def regions(self, purpose: str) -> list[Path]:
        """Folders of World-1's regions for a purpose."""
        return [self.work / "regions" / f"{purpose}-{seed}" for seed in WORLD_1[purpose]]

    def pairs(self, purpose: str, sensor: str) -> Path:
        """Folder of pairs."""
        return self.work / "pairs" / f"{purpose}-{sensor}"

    @property
    def teacher(self) -> Path:
        """Folder of the mini teacher."""
        return self.work / "mini"


# --- stages -----------------------------------------------------------------------------------------------


def teacher_regions(run: Run) -> Any:
    """Photos with captions; nothing looks down on these regions."""
    settings = RegionSettings(photos=TEACHER_PHOTOS, sensors=())
    return [asdict(make_region(run.work / "regions" / f"teacher-{seed}", seed=seed, settings=settings))
            for seed in WORLD_1["teacher"]]  # fmt: skip


def regions(run: Run) -> Any:
    """Scenes and photos of the training and validation regions."""
    settings = RegionSettings(photos=TRAIN_PHOTOS)
    return [asdict(make_region(run.work / "regions" / f"{purpose}-{seed}", seed=seed, settings=settings))
            for purpose in ("validation", "train") for seed in WORLD_1[purpose]]  # fmt: skip


def teacher(run: Run) -> Any:
    """The mini teacher, on photos and captions."""
    settings = TeacherSettings(seed=run.seed)
    return asdict(train_teacher(run.regions("teacher"), run.teacher, settings=settings))


def _pairs_of(sensor: str) -> Callable[[Run], Any]:
    def stage(run: Run) -> Any:
        return [asdict(_pairs(run, purpose, sensor)) for purpose in ("validation", "train")]

    stage.__doc__ = f"Chips of the {sensor} sensor with their photos; indoor photos go by the teacher's word."
    return stage


def _pairs(run: Run, purpose: str, sensor: str) -> Any:
    photos, scenes = [], []
    for region in run.regions(purpose):
        tables = run.work / "tables" / f"{region.name}-{sensor}"
        photos.append(tables / "photos.parquet")
        scenes.append(tables / "scenes.parquet")
        if not photos[-1].exists():
            read_photos(region / "photos.csv", photos[-1])
        if not scenes[-1].exists():
            read_scenes(region / "scenes", scenes[-1], sensor=f"world-{sensor}")
    settings = PairSettings(chip_size=CHIPS[sensor], split="none", seed=run.seed, indoor_teacher=str(run.teacher))
    return make_pairs(photos, scenes, run.pairs(purpose, sensor), settings=settings)


def _model(sensor: str) -> Callable[[Run], Any]:
    def stage(run: Run) -> Any:
        settings = TrainingSettings(
            preset=PRESETS[sensor],
            teacher=str(run.teacher),
            epochs=EPOCHS[sensor],
            seed=run.seed,
        )
        out = run.work / f"mini-{sensor}"
        return asdict(train(run.pairs("train", sensor), out, settings=settings,
                            validation=run.pairs("validation", sensor)))  # fmt: skip

    stage.__doc__ = f"The {sensor} model, image and pixel level: no text, no truth."
    return stage


def _oracle(sensor: str) -> Callable[[Run], Any]:
    def stage(run: Run) -> Any:
        settings = OracleSettings(preset=PRESETS[sensor], epochs=ORACLE_EPOCHS[sensor], seed=run.seed)
        check = (run.pairs("validation", sensor), run.regions("validation"))
        out = run.work / f"world-{sensor}"
        return asdict(train_oracle(run.pairs("train", sensor), run.regions("train"), out, validation=check,
                                   settings=settings))  # fmt: skip

    stage.__doc__ = f"The supervised oracle of {sensor} chips, on their truth."
    return stage


def install(run: Run) -> Any:
    """Weights into the package; the teacher is called `mini` there."""
    kept = shutil.ignore_patterns("*.work", "training")
    shutil.copytree(run.teacher, ASSETS / "teachers" / "mini", dirs_exist_ok=True, ignore=kept)
    for sensor in PRESETS:
        model = load_model(run.work / f"mini-{sensor}")
        model.teacher_name = "mini"
        training = {**model.origin.training, "teacher": "mini"}
        model.origin = replace(model.origin, training=training, licence="apache-2.0")
        save_model(model, ASSETS / "models" / f"mini-{sensor}")
        shutil.copytree(run.work / f"world-{sensor}", ASSETS / "oracles" / f"world-{sensor}", dirs_exist_ok=True)
    for path in ASSETS.rglob("*.safetensors"):
        path.chmod(0o644)  # safetensors writes files that only their owner may read
    sizes = {path.parent.name: path.stat().st_size for path in sorted(ASSETS.rglob("*.safetensors"))}
    return {"bytes": sizes}


STAGES: dict[str, Callable[[Run], Any]] = {
    "teacher-regions": teacher_regions,
    "regions": regions,
    "teacher": teacher,
    **{f"pairs-{sensor}": _pairs_of(sensor) for sensor in PRESETS},
    **{f"model-{sensor}": _model(sensor) for sensor in PRESETS},
    **{f"oracle-{sensor}": _oracle(sensor) for sensor in PRESETS},
    "install": install,
}


# --- running ----------------------------------------------------------------------------------------------


def main() -> None:
    """Run the stages that are not done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work/mini"), help="folder of everything in between")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, batches and draws")
    parser.add_argument("--stage", nargs="*", choices=STAGES, help="run these only, in this order")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    torch.set_num_threads(options.threads)
    run = Run(options.work.resolve(), options.seed)
    for name in options.stage or STAGES:
        _run_stage(name, run)


def _run_stage(name: str, run: Run) -> None:
    """One stage, unless its note says that it is done."""
    note = run.work / "stages" / f"{name}.json"
    if note.exists():
        logger.info("%s is done", name)
        return
    logger.info("%s begins", name)
    started = time.monotonic()
    result = STAGES[name](run)
    seconds = round(time.monotonic() - started)
    done = Manifest(name, settings={"seed": run.seed}, extra={"result": result, "seconds": seconds})
    write_manifest(note, done)
    logger.info("%s took %d s: %s", name, seconds, json.dumps(result, default=str)[:2000])


if __name__ == "__main__":
    main()
