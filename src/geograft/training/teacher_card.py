"""The mini teacher's card: what it is, what it learnt from, what it reaches."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geograft.training.teacher import TeacherSettings, TeacherSummary

_CARD = """---
license: apache-2.0
library_name: transformers
tags: [clip, geograft, simulated]
---
# The mini teacher

A small CLIP (vision {vision}, text {text}, {dim}-d, {size} px photos) trained from scratch on {photos:,} captioned
photos of GeoGRAFT's simulated world. It stands in for CLIP where no weights can be downloaded: in the demo, the
tests and World-1. **It knows the simulated world only**; for real photos take a real CLIP.

- Trained by: `{command}` (stage `teacher`, seed {seed}), regions {regions}, used for nothing else.
- Settings: {epochs} epochs, batch {batch}, AdamW lr {lr}, weight decay {decay}, {keep:.0%} of the patches a step
  (FLIP), lower-case BPE of at most {vocabulary} tokens with BPE-dropout {broken}.
- Held-out words and phrasings (`geograft.world.classes`) occur in none of its captions.

| subject of photos kept apart, zero-shot among 22 classes | share right |
|---|---|
{rows}

Load it with `geograft.models.teacher.load_teacher("mini")` or `transformers.CLIPModel.from_pretrained`.
"""

_NAMES = {
    "top1_seen": "words and phrasings of the captions",
    "balanced_seen": "the same, mean over classes",
    "top1_words": "held-out words",
    "top1_phrasings": "held-out phrasings",
}


def write_card(folder: Path, summary: "TeacherSummary", settings: "TeacherSettings", regions: list[str]) -> None:
    """Write the card as `README.md`."""
    text = _CARD.format(
        vision=f"ViT {settings.width} × {settings.depth}, patch {settings.patch_size}",
        text=f"{settings.text_width} × {settings.text_depth}",
        dim=settings.dim,
        size=settings.image_size,
        photos=summary.photos,
        command="python scripts/train_mini.py",
        seed=settings.seed,
        regions=", ".join(regions),
        epochs=settings.epochs,
        batch=settings.batch,
        lr=settings.lr,
        keep=settings.keep,
        decay=settings.weight_decay,
        vocabulary=settings.vocabulary,
        broken=settings.broken,
        rows="\n".join(f"| {_NAMES[key]} | {value:.3f} |" for key, value in summary.metrics.items() if key in _NAMES),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
