"""`geograft evaluate`: run a card by its name."""

from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

from geograft.errors import BadSetting
from geograft.evaluate.cards import card_names, load_card
from geograft.evaluate.results import CardResult
from geograft.settings import settings_from

QUICK_SIZE = 1500
"""Side in metres of the one region that a quick run looks at."""


def evaluate_card(
    card: str,
    *,
    work: Path = Path("work"),
    out: Path | None = None,
    seeds: Sequence[int] | None = None,
    quick: bool = False,
    config: Path | None = None,
) -> CardResult:
    """The results of a benchmark.

    Args:
        card: name of the card.
        work: folder for regions and other things that are made once.
        out: JSON file to write the results to.
        seeds: regions instead of the card's.
        quick: a part of the data, for a first look; the numbers are not the card's.
        config: YAML file with the card's settings.

    Raises:
        BadSetting: no card has that name, or a setting is wrong.
    """
    name = load_card(card).name
    if name == "world-1":
        result = _world1(work, seeds, quick, config)
    else:
        raise BadSetting(f"the card {card!r} cannot be run; there are {', '.join(card_names())}")
    if out is not None:
        result.write(out)
    return result


def _world1(work: Path, seeds: Sequence[int] | None, quick: bool, config: Path | None) -> CardResult:
    from geograft.evaluate.world1 import World1Settings, evaluate_world1

    settings = settings_from(World1Settings, config, seeds=tuple(seeds) if seeds else None)
    settings = replace(
        settings,
        oracle_1m=settings.oracle_1m or _shipped_oracle("world-1m"),
        oracle_10m=settings.oracle_10m or _shipped_oracle("world-10m"),
    )
    if quick:
        first = settings.seeds or tuple(load_card("world-1").protocol["seeds"])
        settings = replace(settings, seeds=first[:1], size=QUICK_SIZE)
    return evaluate_world1(work, settings=settings)


def _shipped_oracle(sensor: str) -> str:
    """The folder of the oracle that the package ships for a sensor, or "" where it ships none."""
    folder = Path(str(resources.files("geograft"))) / "assets" / "oracles" / sensor
    return str(folder) if (folder / "config.json").is_file() else ""
