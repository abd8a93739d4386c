"""The card of a model folder: what it is, what it was trained on, what was measured, and what it cannot do.

It begins with the front matter that the Hugging Face Hub reads: licence, library, task, tags.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from geograft.models.model import Model, describe_encoder

_LIMITS = """\
- It knows the bands, the ground sample distance and the kind of land that it was trained on, and nothing else.
- Its words are its teacher's: what no ground photo shows, and what the teacher has no word for, it cannot find.
- Scores rank; they are no probabilities. Choose thresholds on places that you know.
"""

_SNIPPET = """\
from geograft.models.checkpoints import load_model

model = load_model("{folder}")  # this folder, or on the hub "hf-hub:org/name"
chips = ...  # (N, {bands}, {size}, {size}) as the scene stores them: {names}
{use}
"""

_TEXT = 'text = model.encode_text(["forest", "harbour"])\n'
_USES = {
    ("image", True): _TEXT + "scores = model.embed_chips(chips) @ text.T  # (N, 2)",
    ("pixel", True): _TEXT + 'scores = np.einsum("ndhw,td->nthw", model.dense(chips), text)  # (N, 2, {grid}, {grid})',
    ("image", False): "vectors = model.embed_chips(chips)  # (N, {dim})",
    ("pixel", False): "vectors = model.dense(chips)  # (N, {dim}, {grid}, {grid})",
}

_HUB_LICENCES = frozenset({
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "odbl",
    "odc-by", "openrail", "unlicense", "other",
})  # fmt: skip
"""Licences that the hub knows by these names; others are written as `other` with a name."""

_KNOWN = ("photo_licences", "bounds", "period", "pretrained")
"""What `Origin.training` may hold that has a place of its own on the card."""


def model_card(model: Model, *, export: Mapping[str, Any] | None = None) -> str:
    """The card of a model as Markdown with front matter, the `README.md` of its folder.

    Args:
        model: what the card is about.
        export: facts about the graphs of an exported folder; None for a folder of weights.
    """
    training = {key: value for key, value in model.origin.training.items() if key not in _KNOWN}
    sections = {
        "Shape": _table(_shape(model)),
        "Export": _table(export or {}),
        "Training": _table(training) or "Nothing was noted.\n",
        "Data": _data(model.origin.training),
        "Measured": _table(model.origin.metrics) or "Nothing was measured yet.\n",
        "Limits": _LIMITS,
        "Use": f"```python\n{_snippet(model)}```\n",
    }
    body = "\n".join(f"## {title}\n{text}" for title, text in sections.items() if text)
    return f"---\n{_front_matter(model, export)}---\n\n# {model.name}\n\n{_lead(model)}\n{body}"


def front_matter(card: str) -> dict[str, Any]:
    """What a card tells the hub; empty where it has no front matter that can be read."""
    match = re.match(r"\A---\n(.*?)\n---\n", card, re.DOTALL)
    try:
        found = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


# --- parts ------------------------------------------------------------------------------------------------


def _front_matter(model: Model, export: Mapping[str, Any] | None) -> str:
    """The lines between the dashes, which the hub shows beside the card."""
    licence = model.origin.licence
    known = licence.lower() in _HUB_LICENCES
    about: dict[str, Any] = {"license": licence.lower() if known else "other"} if licence else {}
    if licence and not known:
        about["license_name"] = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")
    about |= {"library_name": "geograft", "pipeline_tag": _task(model), "tags": _tags(model, export)}
    if re.fullmatch(r"[\w.-]+/[\w.-]+", teacher := model.teacher_name.removeprefix("hf-hub:").split("@")[0]):
        about["base_model"] = teacher
    return yaml.safe_dump(about, sort_keys=False, allow_unicode=True)


def _task(model: Model) -> str:
    """The hub's word for what the model is for."""
    if not model.has_teacher:
        return "image-feature-extraction"
    return "zero-shot-image-classification" if "image" in model.levels else "image-segmentation"


def _tags(model: Model, export: Mapping[str, Any] | None) -> list[str]:
    """Words that the model is found by."""
    tags = ["geograft", "remote-sensing", "satellite-imagery", "earth-observation", "geospatial", "clip"]
    tags += [re.sub(r"[^a-z0-9-]+", "-", model.sensor.name.lower().rsplit("/", 1)[-1]).strip("-")]
    return [*tags, str(export["format"])] if export else tags


def _lead(model: Model) -> str:
    """A paragraph that says what the model is."""
    what = f"A satellite encoder ({' and '.join(model.levels)} level) for {model.sensor.name} chips"
    if not model.has_teacher:
        return f"{what}. It has no teacher, so chips compare with chips only.\n"
    return (
        f"{what} that answers to text through its teacher `{model.teacher_name}`. {_source(model)}"
        " No text annotation was used to train it.\n"
    )


def _source(model: Model) -> str:
    """What the weights come of."""
    if model.origin.training:
        return "It was trained on geotagged ground photos, as in GRAFT (Mall et al., ICLR 2024)."
    return "How it was trained was not noted."


def _shape(model: Model) -> dict[str, Any]:
    """The facts of the encoders and their sensor."""
    return {
        "levels": ", ".join(model.levels) + (" by one encoder" if model.joint else ""),
        "sensor": f"{model.sensor.name}: {', '.join(model.bands)}",
        "ground sample distance": f"{model.gsd:g} m",
        "chip": f"{model.chip_size} px, patches of {model.patch_size} px",
        "encoder": f"vision transformer, {describe_encoder(model.encoders[model.levels[0]])}",
        "embedding": model.dim,
        "teacher": f"{model.teacher_name} ({model.teacher_fingerprint})" if model.has_teacher else "none",
        "fingerprint": model.fingerprint,
    }


def _data(training: Mapping[str, Any]) -> str:
    """Where and when the training's data are from, and under which licences its photos were published."""
    facts: dict[str, Any] = {}
    if bounds := training.get("bounds"):
        facts["west, south, east, north"] = ", ".join(f"{degrees:.4f}" for degrees in bounds)
    if period := training.get("period"):
        facts["time"] = " to ".join(str(day) for day in period)
    if pretrained := training.get("pretrained"):
        facts["weights started from"] = str(pretrained)
    licences = training.get("photo_licences") or {}
    facts |= {f"photos under {name or 'a licence that is not stated'}": count for name, count in licences.items()}
    return _table(facts)


def _table(entries: Mapping[str, Any]) -> str:
    """Entries as a table, one a row; empty where there are none."""
    rows = [f"| {key} | {_cell(value)} |" for key, value in entries.items()]
    return "\n".join(["| what | value |", "|---|---|", *rows, ""]) if rows else ""


def _cell(value: Any) -> str:
    """A value in a table cell; numbers of numpy as Python's."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text.replace("|", "\\|").replace("\n", " ")


def _snippet(model: Model) -> str:
    """Lines of Python that use the model."""
    level = model.levels[0]
    use = _USES[level, model.has_teacher].format(grid=model.chip_size // model.patch_size, dim=model.dim)
    names = ", ".join(model.bands)
    code = _SNIPPET.format(folder=model.name, bands=len(model.bands), size=model.chip_size, names=names, use=use)
    return f"import numpy as np\n\n{code}" if "np." in use else code
