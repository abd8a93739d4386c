"""What is known of the projects whose checkpoints people bring: the activation, which no weights tell.

A checkpoint that was trained with one activation and is run with the other still gives plausible vectors, only worse
ones. Where a project's own code, or the configuration beside its weights, settles the matter it stands here with its
source; where nothing does, open_clip's default is taken and said to be a guess.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any, Literal

Activation = Literal["gelu", "quick_gelu"]
"""What stands between the two halves of a feed-forward layer."""


@dataclasses.dataclass(frozen=True)
class Project:
    """A family of published checkpoints.

    Attributes:
        name: as its authors call it.
        pattern: finds it in the names of a file and the folders above, lower case.
        activation: what it runs with.
        per: beginnings of architectures that run with another one.
        certain: whether the authors' code settles it.
        source: where it is written.
        preprocess: in the words of `preprocess.yaml`, where it is not CLIP's own.
    """

    name: str
    pattern: str
    activation: Activation
    source: str
    per: tuple[tuple[str, Activation], ...] = ()
    certain: bool = True
    preprocess: dict[str, Any] | None = None


SENCLIP = Project(
    "SenCLIP",
    r"senclip",
    "quick_gelu",
    "its evaluation loads the weights into OpenAI's CLIP",
    preprocess={
        "size": 224,
        "resize": "squash",
        "resample": "bicubic",
        "mean": [0.347, 0.376, 0.296],
        "std": [0.269, 0.261, 0.276],
    },
)
PROJECTS: tuple[Project, ...] = (
    SENCLIP,
    Project(
        "SkyCLIP",
        r"skyclip|laion_rs",
        "quick_gelu",
        "its retrieval notebook forces QuickGELU for ViT-L-14 and not for ViT-B-32",
        per=(("ViT-B-32", "gelu"),),
    ),
    Project(
        "GeoRSCLIP",
        r"georsclip|rs5m[-_]vit",
        "quick_gelu",
        "its inference code starts ViT-B-32 from OpenAI's weights and ViT-H-14 from LAION's",
        per=(("ViT-H-14", "gelu"),),
    ),
    Project(
        "RemoteCLIP",
        r"remoteclip",
        "gelu",
        "its readme loads the weights into open_clip's plain architectures, yet training began at OpenAI's weights",
        certain=False,
    ),
    Project("FarSLIP", r"farslip", "quick_gelu", "its readme runs every model with --force-quick-gelu"),
    Project(
        "Long-CLIP and DGTRS-CLIP", r"long-?clip|lrsclip|dgtrs", "quick_gelu", "its model code has QuickGELU built in"
    ),
    Project("CLIP-RSICD", r"clip-rsicd", "quick_gelu", "it is OpenAI's ViT-B/32, trained on in transformers"),
    Project("MetaCLIP", r"metaclip", "quick_gelu", "open_clip lists its weights with QuickGELU"),
    Project("DFN", r"dfn[25]b", "quick_gelu", "open_clip lists its weights with QuickGELU"),
    Project("LAION-2B", r"laion-?2b", "gelu", "open_clip lists its weights without QuickGELU"),
    Project("DataComp", r"datacomp|commonpool", "gelu", "open_clip lists its weights without QuickGELU"),
    Project("OpenAI CLIP", r"openai", "quick_gelu", "OpenAI's model code has QuickGELU built in"),
)
"""In the order in which they are tried: names of data sets come after those of the projects that used them."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """An activation and why it was chosen."""

    activation: Activation
    source: str
    certain: bool


def find_project(path: Path) -> Project | None:
    """The project of a file, by its own name and those of the three folders above it."""
    names = "/".join(path.absolute().parts[-4:]).lower()
    return next((project for project in PROJECTS if re.search(project.pattern, names)), None)


def project_activation(project: Project, architecture: str) -> Choice:
    """The activation of a project's checkpoint of an architecture."""
    for start, activation in project.per:
        if architecture.startswith(start):
            return Choice(activation, f"{project.name}: {project.source}", project.certain)
    return Choice(project.activation, f"{project.name}: {project.source}", project.certain)


def choose_activation(
    path: Path,
    architecture: str,
    *,
    said: Activation | None = None,
    named: str | None = None,
    configured: bool | None = None,
    original: bool = False,
    default: Activation = "gelu",
) -> Choice:
    """The activation of a checkpoint, by the first of these that speaks.

    1. the caller; 2. "quickgelu" in the named architecture or the file's name; 3. the configuration beside the file;
    4. OpenAI's own format; 5. the project that the names of file and folders tell; 6. the library's default, a guess.

    Args:
        path: the file.
        architecture: its architecture's name.
        said: the caller's word.
        named: the architecture's name as the caller gave it.
        configured: whether the configuration beside the file says `quick_gelu`; None where there is none.
        original: whether the file is in OpenAI's own format.
        default: what the library that wrote the format does if it is told nothing.
    """
    if said is not None:
        return Choice(said, "given by the caller", certain=True)
    if "quickgelu" in f"{named or ''} {path.name}".lower():
        return Choice("quick_gelu", "named -quickgelu", certain=True)
    if configured is not None:
        return Choice("quick_gelu" if configured else "gelu", "the configuration beside the file", certain=True)
    if original:
        return Choice("quick_gelu", "OpenAI's own format", certain=True)
    project = find_project(path)
    if project is not None:
        return project_activation(project, architecture)
    return Choice(default, "nothing tells; the default of the library whose format it is", certain=False)
