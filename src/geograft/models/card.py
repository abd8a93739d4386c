"""The card of a model folder: what it is, what it was trained on, what was measured, and what it cannot do."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geograft.models.model import Model

_LIMITS = """\
- It knows the bands, the ground sample distance and the kind of land that it was trained on, and nothing else.
- Its words are its teacher's: what no ground photo shows, and what the teacher has no word for, it cannot find.
- Scores rank; they are no probabilities. Choose thresholds on places that you know.
"""

_SNIPPET = """\
from geograft.models.checkpoints import load_model

model = load_model("{folder}")
chips = ...  # (N, {bands}, {size}, {size}) as the scene stores them: {names}
text = model.encode_text(["forest", "harbour"])
scores = {call}
"""

_CALLS = {
    "image": "model.embed_chips(chips) @ text.T  # (N, 2)",
    "pixel": 'np.einsum("ndhw,td->nthw", model.dense(chips), text)  # (N, 2, {grid}, {grid})',
}


def model_card(model: "Model") -> str:
    """The card of a model as Markdown, the `README.md` of its folder."""
    sections = {
        "Shape": _table(_shape(model)),
        "Training": _table(model.origin.training) or "Nothing was noted.\n",
        "Measured": _table(model.origin.metrics) or "Nothing was measured yet.\n",
        "Limits": _LIMITS,
        "Use": f"```python\n{_snippet(model)}```\n",
    }
    lead = (
        f"A satellite encoder ({' and '.join(model.levels)} level) for {model.sensor.name} chips that answers to text "
        f"through its teacher `{model.teacher_name}`. It was trained on geotagged ground photos, as in GRAFT "
        "(Mall et al., ICLR 2024); no text annotation was used to train it.\n"
    )
    body = "\n".join(f"## {title}\n{text}" for title, text in sections.items())
    return f"# {model.name}\n\n{lead}\n{body}"


def _shape(model: "Model") -> dict[str, Any]:
    """The facts of the encoders and their sensor."""
    settings = model.encoders[model.levels[0]].settings
    return {
        "levels": ", ".join(model.levels),
        "sensor": f"{model.sensor.name}: {', '.join(model.bands)}",
        "ground sample distance": f"{model.gsd:g} m",
        "chip": f"{model.chip_size} px, patches of {model.patch_size} px",
        "encoder": f"ViT of width {settings.width}, depth {settings.depth}, {settings.heads} heads",
        "embedding": model.dim,
        "teacher": f"{model.teacher_name} ({model.teacher_fingerprint})",
        "fingerprint": model.fingerprint,
    }


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


def _snippet(model: "Model") -> str:
    """Lines of Python that use the model."""
    grid = model.chip_size // model.patch_size
    call = _CALLS[model.levels[0]].format(grid=grid)
    names = ", ".join(model.bands)
    code = _SNIPPET.format(folder=model.name, bands=len(model.bands), size=model.chip_size, names=names, call=call)
    return code if model.levels[0] == "image" else f"import numpy as np\n\n{code}"
