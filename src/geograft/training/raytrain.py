"""The same training on a Ray cluster: every worker runs the function that one process would run.

The workers find each other through Ray; `geograft.training.devices` sees them as it sees those of torchrun. They must
see the same paths, or at least each its own copy of the pairs; checkpoints are written and read by the first alone.
"""

import logging
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from geograft.engine import open_engine
from geograft.errors import BadSetting, EngineFailed, GeograftError, MissingExtra

logger = logging.getLogger(__name__)

R = TypeVar("R")

RETRIES = 3
"""How often a training begins again whose worker or node died; it goes on from the last checkpoint."""


def train_on_ray(
    function: Callable[..., R],
    settings: Mapping[str, Any],
    *,
    workers: int,
    gpus: bool = False,
    engine: str = "ray",
    storage: Path | None = None,
    retries: int = RETRIES,
) -> R:
    """Run a training on several workers of a Ray cluster; what it gives in the first one.

        train_on_ray(train, {"pairs": "/data/pairs", "out": "/data/model"}, workers=4, gpus=True)

    Args:
        function: what each worker runs, such as `geograft.training.trainer.train`; it calls `fit` inside.
        settings: what it is called with, by name.
        workers: how many processes train together, each with a core.
        gpus: a GPU for each of them too; they compute on CPUs where False.
        engine: "ray" for a Ray of this machine, or the cluster that `RAY_ADDRESS` names; "ray:HOST:PORT" for another.
        storage: a folder that all nodes see, for Ray's own notes; a temporary one, enough for one node, where None.
        retries: how often it begins again where a worker or node died.

    Returns:
        What the first worker returned; it must be picklable.

    Raises:
        BadSetting: there are no workers, or the engine is not Ray.
        MissingExtra: Ray Train is not installed.
        EngineFailed: the cluster does not answer, has no room, or lost a worker again and again.
        Exception: what the function raised in a worker.
    """
    if workers < 1 or engine.partition(":")[0] != "ray":
        raise BadSetting(
            f"Training on Ray needs workers >= 1 and the engine ray or ray:HOST:PORT, not {workers}, {engine}."
        )
    with open_engine(engine, workers=workers), tempfile.TemporaryDirectory() as notes:
        _check_room(workers, gpus=gpus)
        trainer = _trainer(function, dict(settings), storage or Path(notes), workers=workers, gpus=gpus)
        return _until_done(trainer, retries)  # type: ignore[no-any-return]


def _trainer(
    function: Callable[..., Any], settings: dict[str, Any], storage: Path, *, workers: int, gpus: bool
) -> Callable[[], Any]:
    """What runs the training once."""
    try:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        raise MissingExtra("Training on Ray needs Ray Train: pip install 'geograft[ray]'.") from error

    def run() -> Any:
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"function": function, "settings": settings, "gpus": gpus},
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
            run_config=RunConfig(name=secrets.token_hex(8), storage_path=str(storage)),
        )
        return trainer.fit().return_value

    return run


def _worker(config: dict[str, Any]) -> Any:
    """What a worker does."""
    if not config["gpus"]:
        os.environ["ACCELERATE_USE_CPU"] = "1"
    return config["function"](**config["settings"])


def _until_done(run: Callable[[], Any], retries: int) -> Any:
    """Run again while workers die."""
    from ray.train.v2.api.exceptions import TrainingFailedError

    for attempt in range(retries + 1):
        try:
            return run()
        except TrainingFailedError as error:
            raised, died = _reasons(error)
            if not died:
                raise raised or EngineFailed(f"Ray could not run the training ({error}).") from error
            logger.warning("a worker died (%s): attempt %d of %d", died, attempt + 1, retries + 1)
    raise EngineFailed(
        f"Workers died {retries + 1} times ({died}), most often for lack of memory: set chunk or a smaller batch, and "
        "run again to go on from the last checkpoint."
    )


def _reasons(failed: Any) -> tuple[BaseException | None, str]:
    """What the function raised, a named error before others, and how a worker died where no named error says why."""
    from ray.exceptions import RayError
    from ray.train.v2.api.exceptions import RayTrainError

    failures = getattr(failed, "worker_failures", {})
    errors = [getattr(failures[rank], "_base_exc", failures[rank]) for rank in sorted(failures)]
    deaths = [error for error in errors if isinstance(error, (RayError, RayTrainError))]
    named = [error for error in errors if isinstance(error, GeograftError)]
    raised = next(iter(named or [error for error in errors if error not in deaths]), None)
    return raised, "" if named or not deaths else (str(deaths[0]).strip().splitlines() or ["no reason given"])[0]


def _check_room(workers: int, *, gpus: bool) -> None:
    """Refuse a training that would wait for ever.

    Raises:
        EngineFailed: the cluster has fewer cores or GPUs than workers.
    """
    import ray

    there = ray.cluster_resources()
    for kind in ("CPU", "GPU") if gpus else ("CPU",):
        if there.get(kind, 0) < workers:
            raise EngineFailed(
                f"The cluster has {there.get(kind, 0):.0f} {kind}s for {workers} workers: use fewer, or add nodes."
            )
