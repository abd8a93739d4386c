"""The zoo: models that are known by name, what they are good for, and where their weights lie.

Data, not code: `assets/zoo.yaml`. Nothing is downloaded to read it.
"""

import difflib
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cache
from importlib import resources
from typing import Any

from geograft.errors import UnknownModel

KINDS = ("shipped", "words", "clip", "siglip", "graft")
USES = ("model", "teacher")


@dataclass(frozen=True)
class ZooEntry:
    """A model that is known by name.

    Attributes:
        name: what `geograft.load` and `load_teacher` take.
        title: what its authors call it.
        kind: "shipped", "words", "clip", "siglip" or "graft".
        use: "model" where it embeds imagery, "teacher" where it encodes ground photos and text.
        licence: of the weights; "not stated" where their authors state none.
        text: whose words it answers to: "own", or the name of another entry or teacher.
        imagery: what it was trained on.
        parameters: millions, of both towers where it has two.
        dim: length of the embeddings.
        good_for: in a few words.
        reference: where it is described.
        hub: its repository on the hub; empty where the weights are shipped or cannot be fetched.
        file: the file in the repository; empty for a folder in transformers' format.
        bring: what to do where the weights cannot be fetched.
        architecture: as open_clip calls it; empty where the weights' folder says it.
        activation: what the file does not say; empty where the weights' folder says it.
        sensor: what it reads, for models.
        gsd: metres per pixel that it was trained at; None where it saw many.
        notes: what else one should know.
    """

    name: str
    title: str
    kind: str
    use: tuple[str, ...]
    licence: str
    text: str
    imagery: str
    parameters: float
    dim: int
    good_for: str
    reference: str
    hub: str = ""
    file: str = ""
    bring: str = ""
    architecture: str = ""
    activation: str = ""
    sensor: str = "rgb"
    gsd: float | None = None
    notes: str = ""

    @property
    def source(self) -> str:
        """Where the weights come from, in a few words."""
        if self.hub:
            return f"hf-hub:{self.hub}" + (f" ({self.file})" if self.file else "")
        return "your own file" if self.bring else "shipped with the package"

    @property
    def how_to_load(self) -> str:
        """The lines of Python that load it."""
        if self.kind == "graft":
            return f'geograft.load("your-file.ckpt", sensor="{self.sensor}")'
        if self.bring:
            return 'geograft.load("your-file.pt")'
        lines = [f'geograft.load("{self.name}")'] if "model" in self.use else []
        lines += [f'geograft.load_teacher("{self.name}")'] if "teacher" in self.use else []
        return "; ".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All that is known of it, ready for JSON."""
        return {**asdict(self), "use": list(self.use), "source": self.source, "how_to_load": self.how_to_load}


@cache
def zoo() -> dict[str, ZooEntry]:
    """All entries by name, in the order of the file: shipped, general, from above."""
    import yaml

    text = (resources.files("geograft") / "assets" / "zoo.yaml").read_text(encoding="utf-8")
    entries = [_entry(values) for values in yaml.safe_load(text)]
    return {entry.name: entry for entry in entries}


def find_entry(name: str) -> ZooEntry:
    """The entry of a name; capitals do not matter.

    Raises:
        UnknownModel: there is none; the sentence lists names that are near.
    """
    found = zoo().get(name.lower())
    if found is None:
        raise UnknownModel(f"No model is called {name!r}{near(name)}.")
    return found


def near(name: str) -> str:
    """What an error says about names that look alike, and where all of them are listed."""
    known = ["mini", *zoo()]
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    parts = [one for one in known if name and name.lower() in one and one not in close][:3]
    hint = f"; did you mean {', '.join(close + parts)}" if close or parts else ""
    return f"{hint}; `geograft models` lists the names, and a folder, a file or a hub name (org/name) is taken as well"


def _entry(values: dict[str, Any]) -> ZooEntry:
    """An entry of its YAML fields, checked."""
    known = {each.name: each for each in fields(ZooEntry)}
    needed = {name for name, each in known.items() if each.default is MISSING}
    wrong, missing = set(values) - set(known), needed - set(values)
    if wrong or missing or values["kind"] not in KINDS or set(values["use"]) - set(USES):
        raise ValueError(f"zoo.yaml: {values.get('name')} has wrong or missing fields {sorted(wrong | missing)}.")
    return ZooEntry(**{**values, "use": tuple(values["use"]), "parameters": float(values["parameters"])})
