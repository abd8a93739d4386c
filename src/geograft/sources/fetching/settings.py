"""How photos are fetched."""

from dataclasses import dataclass

from geograft.errors import BadSetting

_MAX_QUALITY = 95


@dataclass(frozen=True)
class FetchSettings:
    """How photos are fetched.

    Attributes:
        per_second: requests a second to one host.
        per_host: requests to one host at once.
        workers: requests to all hosts at once.
        attempts: requests for one photo before it counts as failed.
        backoff_s: seconds before the second attempt, about; each further one waits twice as long.
        timeout_s: seconds without a byte after which a request has failed.
        max_seconds: seconds after which a request is cut off, whatever came.
        max_bytes: of one photo.
        max_redirects: in a row.
        max_side: longest side in pixels of the photos that are kept; as they come where None.
        quality: of JPEGs that are made smaller.
        contact: an address that servers' keepers can write to; it goes into the User-Agent.
        stop_after: a host that refuses so many requests in a row is not asked any more in this run.
        max_wait_s: the longest time that a host may ask to wait; one that asks for more is left for another run.
        retry_failed: ask again for photos that failed in an earlier run.
        allow_private: also ask addresses that are not public, such as a server of the own network.
    """

    per_second: float = 2.0
    per_host: int = 2
    workers: int = 16
    attempts: int = 4
    backoff_s: float = 2.0
    timeout_s: float = 20.0
    max_seconds: float = 120.0
    max_bytes: int = 50_000_000
    max_redirects: int = 5
    max_side: int | None = 512
    quality: int = 90
    contact: str | None = None
    stop_after: int = 20
    max_wait_s: float = 600.0
    retry_failed: bool = False
    allow_private: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            BadSetting: a setting is out of its range.
        """
        for name in ("per_second", "backoff_s", "timeout_s", "max_seconds", "max_wait_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise BadSetting(f"{name} is a number above 0, not {getattr(self, name)}.")
        for name in ("per_host", "workers", "attempts", "max_bytes", "stop_after", "max_side"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise BadSetting(f"{name} is at least 1, not {value}.")
        if self.max_redirects < 0:
            raise BadSetting(f"max_redirects is at least 0, not {self.max_redirects}.")
        if not 1 <= self.quality <= _MAX_QUALITY:
            raise BadSetting(f"quality is between 1 and {_MAX_QUALITY}, not {self.quality}.")
        if self.contact is not None and not (self.contact.isascii() and self.contact.isprintable()):
            raise BadSetting("contact is one line of plain letters, such as a mail address.")
