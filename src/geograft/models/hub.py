"""Model folders on the Hugging Face Hub: what is uploaded, and where what was downloaded lies."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geograft.errors import BadSetting, NotShareable, UnknownModel, UploadFailed
from geograft.models.card import front_matter
from geograft.models.checkpoints import CARD, CONFIG, ITEM, WEIGHTS, load_model, read_config, save_model
from geograft.models.model import Origin

HUB = "https://huggingface.co"
TOKEN = "HF_TOKEN"  # noqa: S105 - the variable's name

_NAME = re.compile(r"(?:hf-hub:)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_GRAPHS = ("*.onnx", "*.xml", "*.bin")
_RESTRICTED = ("nc", "nd", "all-rights-reserved")


@dataclass(frozen=True)
class PushSummary:
    """What `push_to_hub` uploaded, or would.

    Attributes:
        repo: "org/name".
        url: where it is looked at.
        files: name to bytes.
        licence: of the model, as the card says it.
        private: whether only the owner sees it.
        commit: the hub's name of this upload; None where nothing was uploaded.
        notes: what others will stumble over.
    """

    repo: str
    url: str
    files: Mapping[str, int]
    licence: str
    private: bool
    commit: str | None = None
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What people see."""
        size = sum(self.files.values()) / 1e6
        done = f"uploaded as {self.commit}" if self.commit else "nothing is uploaded"
        shown = [f"  {name:<20} {bytes_ / 1e6:9.2f} MB" for name, bytes_ in self.files.items()]
        seen = "private" if self.private else "public"
        return [f"{self.url} ({seen}, {self.licence}): {size:.2f} MB, {done}", *shown, *self.notes]


def push_to_hub(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    licence: str | None = None,
    dry_run: bool = False,
) -> PushSummary:
    """Upload a model folder, or an exported one, to a repository of the Hugging Face Hub, which is made if need be.

    The token is taken from the environment, `HF_TOKEN`; it needs the right to write. Only the model's own files are
    uploaded: not the training's checkpoints and logs, which may lie in the same folder.

    Args:
        folder: what `train`, `save_model` or `export_model` wrote.
        repo: "org/name".
        private: whether only the owner sees a repository that is made now.
        revision: the branch, made if need be; the main one where None.
        licence: under which the model may be passed on ("apache-2.0"); written to the folder first.
        dry_run: look, and upload nothing.

    Returns:
        What was uploaded.

    Raises:
        NotShareable: the folder has no licence or no card, or is damaged.
        BadSetting: the repository's name has another form.
        UploadFailed: there is no token, or the hub refuses or does not answer.
    """
    folder = Path(folder)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise BadSetting(f"A repository is named org/name, not {repo!r}.")
    if licence is not None:
        set_licence(folder, licence)
    plan = plan_push(folder, repo, private=private)
    return plan if dry_run else replace(plan, commit=_upload(folder, plan, revision))


def plan_push(folder: Path, repo: str, *, private: bool = False) -> PushSummary:
    """What would be uploaded of a folder.

    Raises:
        NotShareable: the folder has no licence or no card, or is damaged.
    """
    config = read_config(folder) if (folder / CONFIG).is_file() else None
    if config is None:
        raise NotShareable(f"{folder} is no model folder: it has no {CONFIG}.")
    if not (folder / CARD).is_file():
        raise NotShareable(f"{folder} has no card ({CARD}): save the model again, which writes one.")
    licence = front_matter((folder / CARD).read_text(encoding="utf-8")).get("license")
    if not licence:
        raise NotShareable(
            f"The card of {folder} names no licence, so nobody may use the model: say which by --licence apache-2.0, "
            "or in the front matter of its README.md."
        )
    load_model(folder)  # a damaged folder is not shared
    names = [CONFIG, CARD, ITEM, WEIGHTS, *sorted(config.get("export", {}).get("files", ()))]
    files = {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}
    url = f"{_endpoint()}/{repo}"
    return PushSummary(repo, url, files, str(licence), private, notes=_notes(config))


def set_licence(folder: str | Path, licence: str) -> None:
    """Write the licence of a model to its folder: configuration, card and item.

    Raises:
        NotShareable: the folder is an export, which takes the licence of the model that it is made of.
    """
    folder = Path(folder)
    config = read_config(folder)
    if "export" in config and config.get("licence") != licence:
        raise NotShareable(f"{folder} is an export: set the licence of the model, and export it again.")
    if config.get("licence") != licence:
        model = load_model(folder)
        model.origin = Origin(model.origin.training, model.origin.metrics, licence)
        save_model(model, folder)


def download_folder(name: str) -> Path:
    """The folder of a model on the hub; what lies in the hub's cache is taken without asking the network.

    Args:
        name: "hf-hub:org/name" or "hf-hub:org/name@revision".

    Raises:
        UnknownModel: the hub has no such model, or cannot be reached.
    """
    from huggingface_hub import snapshot_download

    match = _NAME.fullmatch(name)
    if match is None:
        raise UnknownModel(f"A model on the hub is named hf-hub:org/name or hf-hub:org/name@revision, not {name!r}.")
    problem = ""
    wanted = [CONFIG, CARD, ITEM, WEIGHTS, *_GRAPHS]
    for offline in (True, False):
        try:
            folder = Path(
                snapshot_download(
                    match["repo"],
                    revision=match["revision"],
                    allow_patterns=wanted,
                    local_files_only=offline,
                    endpoint=_endpoint(),
                )
            )
        except _hub_problems() as error:
            problem = str(error).strip().splitlines()[0]
            continue
        if _is_whole(folder):
            return folder
        problem = f"it has no {CONFIG} of a model folder with its weights"
    raise UnknownModel(f"The model {match['repo']} is neither cached nor downloadable: {problem}")


# --- inside -----------------------------------------------------------------------------------------------


def _is_whole(folder: Path) -> bool:
    """Whether a snapshot holds a configuration and the files that it names."""
    if not (folder / CONFIG).is_file():
        return False
    export = read_config(folder).get("export")
    return all((folder / name).is_file() for name in (export["files"] if export else (WEIGHTS,)))


def _hub_problems() -> tuple[type[Exception], ...]:
    """What the hub's client raises, whichever HTTP library its version uses."""
    from huggingface_hub.errors import HfHubHTTPError

    return (*HfHubHTTPError.__bases__, OSError, ValueError, RuntimeError)


def _endpoint() -> str:
    """The hub's address."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def _notes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What others will stumble over."""
    notes = []
    teacher = (config.get("teacher") or {}).get("name", "")
    if Path(teacher).is_absolute() or teacher.startswith("."):
        notes.append(
            f"note: the teacher is named by a path of this machine ({teacher}): others must give theirs by hand"
        )
    licences = config.get("training", {}).get("photo_licences") or {}
    if bound := [name for name in licences if set(str(name).lower().split("-")) & set(_RESTRICTED)]:
        notes.append(f"note: photos under {', '.join(bound)} were used in training; see that your licence respects it")
    return tuple(notes)


def _upload(folder: Path, plan: PushSummary, revision: str | None) -> str:
    """Make the repository and upload the files in one commit; its name."""
    from huggingface_hub import HfApi

    token = os.environ.get(TOKEN)
    if not token:
        raise UploadFailed(
            f"There is no token: make one that may write at {HUB}/settings/tokens and put it into {TOKEN}."
        )
    api = HfApi(endpoint=_endpoint(), token=token, library_name="geograft")
    try:
        api.create_repo(plan.repo, private=plan.private or None, exist_ok=True)
        if revision is not None:
            api.create_branch(plan.repo, branch=revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=plan.repo,
            folder_path=folder,
            revision=revision,
            allow_patterns=list(plan.files),
            commit_message=f"Upload {folder.resolve().name}",
        )
    except _hub_problems() as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise UploadFailed(f"The hub did not take {plan.repo}: {reason}") from error
    return str(done.oid)
