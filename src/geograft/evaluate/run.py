"""`geograft evaluate`: run a card by its name."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from geograft.errors import BadSetting
from geograft.evaluate.cards import load_card
from geograft.evaluate.results import CardResult
from geograft.settings import settings_from

QUICK_SIZE = 1500
"""Side in metres of the one region that a quick run looks at."""

QUICK_EPOCHS = 2
"""Passes over the pairs where a quick run trains."""


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
    runners = {"world-1": _world1, "walks": _walks}
    name = load_card(card).name
    if name not in runners:
        raise BadSetting(f"the card {card!r} cannot be run; those that can are {', '.join(runners)}")
    result = runners[name](work, tuple(seeds) if seeds else None, quick, config)
    if out is not None:
        result.write(out)
    return result


def diagnose_card(
    card: str,
    *,
    work: Path = Path("work"),
    seeds: Sequence[int] | None = None,
    quick: bool = False,
    config: Path | None = None,
) -> str:
    """Where a model's maps lose on the card world-1, as Markdown: in the pixels, the embeddings or the words.

    Args:
        card: "world-1", the card with the truth of every pixel.
        work: as for `evaluate_card`, like the others.
        seeds: regions instead of the card's.
        quick: one small region.
        config: YAML file with the card's settings.

    Raises:
        BadSetting: another card, a wrong setting, or no model with a pixel level.
    """
    from geograft.evaluate.world1 import diagnose_world1

    if card != "world-1":
        raise BadSetting(f"only world-1 knows the truth of every pixel; the card {card!r} cannot be diagnosed")
    found = diagnose_world1(work, settings=_world1_settings(tuple(seeds) if seeds else None, quick, config))
    return "\n".join(f"## {sensor}\n\n{about.to_markdown()}" for sensor, about in found.items())


def _world1(work: Path, seeds: tuple[int, ...] | None, quick: bool, config: Path | None) -> CardResult:
    from geograft.evaluate.world1 import evaluate_world1

    return evaluate_world1(work, settings=_world1_settings(seeds, quick, config))


def _world1_settings(seeds: tuple[int, ...] | None, quick: bool, config: Path | None) -> Any:
    from geograft.evaluate.world1 import World1Settings

    settings = settings_from(World1Settings, config, seeds=seeds)
    if quick:
        first = settings.seeds or tuple(load_card("world-1").protocol["seeds"])
        settings = replace(settings, seeds=first[:1], size=QUICK_SIZE)
    return settings


def _walks(work: Path, seeds: tuple[int, ...] | None, quick: bool, config: Path | None) -> CardResult:
    from geograft.evaluate.walks import WalksSettings, evaluate_walks

    settings = settings_from(WalksSettings, config, seeds=seeds)
    if quick:
        settings = replace(settings, seeds=settings.seeds[:1], training=replace(settings.training, epochs=QUICK_EPOCHS))
    return evaluate_walks(work, settings=settings)
