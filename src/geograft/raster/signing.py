"""Addresses that expire, signed when a file is opened and again when the server refuses; never stored in a table.

A signer is a function of an address that gives the address to read. It is found by its name, which a scene table or
`SceneSettings.signer` holds, or by a pattern of host names:

* `planetary-computer` is built in: it asks for one token a storage container and keeps it until it expires.
* `register("mine", function)` or `register("*.example.org", function)` adds one in this process.
* The environment variable `GEOGRAFT_SIGNERS` adds one in every process that inherits it:
  `GEOGRAFT_SIGNERS="mine=my_module:sign;*.blob.core.windows.net=planetary-computer"`. `my_module` is imported from
  the Python path and is code that the user names himself; a table never names code, only a signer's name.

A function may have an attribute `forget()`, which is called before an address is signed again.
"""

import fnmatch
import importlib
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from geograft.errors import BadSetting, UnreachableScene

Signer = Callable[[str], str]

VARIABLE = "GEOGRAFT_SIGNERS"
ENDPOINT = "https://planetarycomputer.microsoft.com/api/sas/v1/token"
"""Where the Planetary Computer gives tokens; the environment variable `PC_SDK_SAS_URL` names another place."""
SPARE_S = 60.0
"""A token that ends sooner than this is renewed."""
TIMEOUT_S = 20.0

_registered: dict[str, Signer] = {}


class TokenSigner:
    """Appends a token to an address, one token a storage container, asked for once and kept until it expires.

    Args:
        endpoint: answers `GET endpoint/account/container` by JSON with `token` and `msft:expiry`; the account is the
            first word of the address's host, the container the first folder of its path.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._tokens: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def __call__(self, uri: str) -> str:
        """The address with its container's token; an address that has a query already is signed already."""
        place = urlsplit(uri)
        if place.query:
            return uri
        container = f"{(place.hostname or '').split('.')[0]}/{place.path.lstrip('/').split('/')[0]}"
        with self._lock:
            token, expires = self._tokens.get(container, ("", 0.0))
            if expires - SPARE_S < time.time():
                token, expires = self._ask(container)
                self._tokens[container] = (token, expires)
        return f"{uri}?{token}"

    def forget(self) -> None:
        """Ask for new tokens from now on."""
        with self._lock:
            self._tokens.clear()

    def _ask(self, container: str) -> tuple[str, float]:
        """A container's token and when it expires, in seconds since 1970."""
        address = f"{self.endpoint}/{container}"
        try:
            with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:  # noqa: S310 - the user's endpoint
                found = json.load(answer)
            return str(found["token"]), datetime.fromisoformat(found["msft:expiry"]).timestamp()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnreachableScene(f"No token could be had of {address} ({error}): try again later.") from error


def register(name: str, signer: Signer) -> None:
    """Add a signer under a name, or for hosts by a pattern such as `*.example.org`; the latest of a name counts."""
    _registered[name] = signer


def signer_of(uri: str, name: str | None = None) -> Signer | None:
    """The signer of an address: the one that is named, or else the one whose pattern fits its host, or None.

    Raises:
        BadSetting: no signer has that name, or the environment names code that cannot be imported.
    """
    known = {**_of_environment(os.environ.get(VARIABLE, "")), **_registered}
    if name is not None:
        if name not in known and name != "planetary-computer":
            raise BadSetting(
                f"No signer is called {name!r}: use planetary-computer, or say which function it is, "
                f'{VARIABLE}="{name}=module:function".'
            )
        return known.get(name) or _planetary_computer(os.environ.get("PC_SDK_SAS_URL") or ENDPOINT)
    host = urlsplit(uri).netloc
    return next((signer for pattern, signer in known.items() if _fits(host, pattern)), None)


def signed(uri: str, name: str | None = None) -> str:
    """An address as it is to be read now; itself where nothing signs it."""
    signer = signer_of(uri, name)
    return uri if signer is None else signer(uri)


def forget(uri: str, name: str | None = None) -> bool:
    """Have an address signed anew next time; False where nothing signs it."""
    signer = signer_of(uri, name)
    getattr(signer, "forget", lambda: None)()
    return signer is not None


def _fits(host: str, pattern: str) -> bool:
    """Whether a host, with or without its port, is of a pattern."""
    return bool(host) and any(fnmatch.fnmatch(each, pattern) for each in (host, host.split(":", maxsplit=1)[0]))


@lru_cache(maxsize=4)
def _planetary_computer(endpoint: str) -> Signer:
    """The one signer of an endpoint, which keeps its tokens."""
    return TokenSigner(endpoint)


@lru_cache(maxsize=4)
def _of_environment(text: str) -> dict[str, Signer]:
    """The signers that the environment variable names, by name or pattern."""
    found: dict[str, Signer] = {}
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        name, _, target = entry.rpartition("=")
        found[name.strip()] = _imported(target.strip(), entry)
    return found


def _imported(target: str, entry: str) -> Signer:
    """The function that an entry of the environment variable names."""
    if target == "planetary-computer":
        return _planetary_computer(os.environ.get("PC_SDK_SAS_URL") or ENDPOINT)
    module, _, name = target.partition(":")
    try:
        function: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadSetting(f"{VARIABLE}: {entry!r} names no function ({error}): write name=module:function.") from error
    if not callable(function):
        raise BadSetting(f"{VARIABLE}: {target} is no function.")
    return function  # type: ignore[no-any-return]  # any callable of the user's
