"""GeoGRAFT: open-vocabulary models of satellite imagery, trained without one text annotation.

```python
import geograft as gg

model = gg.load("mini")
scene = gg.open_scene("naip_2020.tif", sensor="naip")
labels = gg.segment(scene, "water; crops, farmland; trees, forest", model=model)
labels.to_cog("map.tif")
```

Names load when they are used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geograft.evaluate.run import evaluate_card as evaluate_card
    from geograft.models.loading import load as load
    from geograft.models.teacher import load_teacher as load_teacher
    from geograft.pairs.plan import make_pairs as make_pairs
    from geograft.raster import open_scene as open_scene
    from geograft.sources.photos import read_photos as read_photos
    from geograft.sources.scenes import read_scenes as read_scenes
    from geograft.tasks.classify import classify as classify
    from geograft.tasks.embed import embed as embed
    from geograft.tasks.search import search as search
    from geograft.tasks.segment import segment as segment
    from geograft.training.trainer import train as train
    from geograft.world.region import make_region as make_region

__version__ = "0.1.0"

_HOMES = {
    "classify": ("geograft.tasks.classify", "classify"),
    "embed": ("geograft.tasks.embed", "embed"),
    "evaluate_card": ("geograft.evaluate.run", "evaluate_card"),
    "load": ("geograft.models.loading", "load"),
    "load_teacher": ("geograft.models.teacher", "load_teacher"),
    "make_pairs": ("geograft.pairs.plan", "make_pairs"),
    "make_region": ("geograft.world.region", "make_region"),
    "open_scene": ("geograft.raster", "open_scene"),
    "read_photos": ("geograft.sources.photos", "read_photos"),
    "read_scenes": ("geograft.sources.scenes", "read_scenes"),
    "search": ("geograft.tasks.search", "search"),
    "segment": ("geograft.tasks.segment", "segment"),
    "train": ("geograft.training.trainer", "train"),
}

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604 - the names are the keys above


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'geograft' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
