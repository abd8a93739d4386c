"""Named errors: what went wrong, and what to do about it.

Every error that a user can cause derives from `GeograftError`; the command line prints its sentence and exits
with 2. A row that cannot be used (one photo of thousands) raises nothing: it is skipped, counted and reported
with its reason.
"""

import errno

_PATHS = {
    errno.EACCES: "permission denied; choose another place or change its permissions",
    errno.EPERM: "not permitted; choose another place or change its permissions",
    errno.EROFS: "it lies on a file system that cannot be written; choose another place",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENOTDIR: "a part of the path is a file; name a folder there",
    errno.EEXIST: "a file lies where a folder is needed; choose another path",
    errno.ENOTEMPTY: "a folder of that name is in the way; choose another name",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ENOSPC: "the disk is full; free some space and run again",
    errno.EDQUOT: "the quota is used up; free some space and run again",
}


def path_problem(error: OSError) -> str | None:
    """What is wrong with a path that a user named, and what to do; None for errors that are not about that."""
    return _PATHS.get(error.errno) if error.errno is not None else None


class GeograftError(Exception):
    """Base of all errors whose message tells the user what to do."""


# --- files and tables -------------------------------------------------------------------------------------


class MissingInput(GeograftError):
    """A file or folder that was named does not exist."""


class MissingColumns(GeograftError):
    """A table lacks columns that the stage needs."""


class UnreadableTable(GeograftError):
    """A table's encoding or structure cannot be read."""


class EmptyTable(GeograftError):
    """A table, or what was left of it after filters, has no rows."""


class BadCoordinates(GeograftError):
    """A table's coordinates cannot be what they are called, such as swapped latitudes and longitudes."""


class OutputExists(GeograftError):
    """The output is there already and was made from other inputs or settings."""


class DiskFull(GeograftError):
    """The disk filled up while an output was written; nothing was left under its final name."""


class UnwritableOutput(GeograftError):
    """An output cannot be written where it was asked for: no permission, a folder, or the input itself."""


class EngineFailed(GeograftError):
    """Workers or a cluster cannot be had, or died again and again."""


class DownloadFailed(GeograftError):
    """A server refuses or does not answer, and going on would not help."""


# --- imagery ----------------------------------------------------------------------------------------------


class UnreadableScene(GeograftError):
    """A raster is truncated, not a raster, or of a format that cannot be read."""


class UnreachableScene(UnreadableScene):
    """A scene's server is busy, fails or does not answer; the same run may find it well again later."""


class NoGeoreference(GeograftError):
    """A raster has no coordinate reference system or no transform."""


class MissingAsset(GeograftError):
    """A STAC item has no asset for a band of the sensor."""


class UnknownSensor(GeograftError):
    """No sensor specification fits, or none has that name."""


class SensorMismatch(GeograftError):
    """A scene's bands, data type or scale contradict its sensor specification."""


class SceneTooSmall(GeograftError):
    """A chip or window does not fit into the scene."""


# --- pairs ------------------------------------------------------------------------------------------------


class NoPairs(GeograftError):
    """No photo lies on any scene, so there is nothing to train on."""


class EmptySplit(GeograftError):
    """A split holds no chips."""


class MissingShard(UnreadableTable):
    """A shard of pixels is gone, or was never written."""


class OwnerlessChip(GeograftError):
    """A chip in a batch owns no photo."""


# --- models -----------------------------------------------------------------------------------------------


class UnknownModel(GeograftError):
    """No model, teacher or preset has that name."""


class NoTextEncoder(GeograftError):
    """Text was asked of a teacher that encodes images only."""


class NoPhotoEncoder(GeograftError):
    """Photos were asked of a text encoder that stands alone."""


class CheckpointMismatch(GeograftError):
    """A checkpoint's keys, shapes or settings are not those of the architecture that loads it."""


class UnsafeCheckpoint(GeograftError):
    """A checkpoint holds pickled objects that are not on the list of harmless ones; nothing of it was run."""


class ModelMismatch(GeograftError):
    """A model is asked for bands, a sensor, a level or a text encoder that it does not have."""


class MixedSensors(GeograftError):
    """Pairs of several sensors meet an encoder, or a reader, that knows one only."""


class ExportFailed(GeograftError):
    """A model does not become a graph of another library, or the graph gives other vectors than the model."""


class NotShareable(GeograftError):
    """A model folder lacks what others need of it, such as a licence or a card."""


class UploadFailed(GeograftError):
    """The hub refuses an upload or does not answer."""


class MissingExtra(GeograftError):
    """An optional dependency is needed and not installed."""


class TrainingDiverged(GeograftError):
    """A loss, a gradient or a weight is not finite."""


class OutOfMemory(GeograftError):
    """A step of training does not fit into the memory of the device."""


# --- use --------------------------------------------------------------------------------------------------


class BadQuery(GeograftError):
    """A query or class list is empty, doubled or otherwise unusable."""


class BadSetting(GeograftError):
    """A setting is out of its range."""
