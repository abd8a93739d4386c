"""Cards: a benchmark's protocol, written down once and read by the code that runs it."""

from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import yaml

from geograft.errors import BadSetting


@dataclass(frozen=True)
class Card:
    """A benchmark's protocol.

    Attributes:
        name: what `geograft evaluate` takes.
        title: one line.
        metrics: definition of each metric, by key.
        primary: key of the metric that a single number would be.
        methods: what each method does, by key.
        protocol: everything else that the card's file says.
    """

    name: str
    title: str
    metrics: dict[str, str]
    primary: str
    methods: dict[str, str] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)

    def describe(self) -> str:
        """The card as text for people."""
        parts = {"metrics": self.metrics, "methods": self.methods, **self.protocol}
        return f"{self.name}: {self.title}\n\n{yaml.safe_dump(parts, sort_keys=False, width=100)}"


def card_names() -> tuple[str, ...]:
    """The names of all cards."""
    folder = resources.files("geograft.evaluate") / "cards"
    return tuple(sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")))


def load_card(name: str) -> Card:
    """The card of a name.

    Raises:
        BadSetting: there is none of that name; the sentence lists those that exist.
    """
    if name not in card_names():
        raise BadSetting(f"no card is named {name!r}; there are {', '.join(card_names())}")
    text = (resources.files("geograft.evaluate") / "cards" / f"{name}.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    own = {key: values.pop(key) for key in ("name", "title", "metrics", "primary", "methods") if key in values}
    return Card(**own, protocol=values)
