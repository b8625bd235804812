"""Keys: what a sender or a reader shows, and who that makes it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from llmobs.access.quota import Quota
from llmobs.errors import ConfigurationError

__all__ = ["ANYONE", "Key", "KeyOwner", "Keys", "Role"]

_HASH_PREFIX: Final = "sha256:"
_HEADERS: Final = ("x-api-key", "api-key")


class Role(Enum):
    """What a key is for; `ADMIN` may do all.

    A key for `FEEDBACK` stands in web pages, where anybody can read it: it may say what somebody
    thinks of an answer, and nothing else. Who may send everything may send that, too.
    """

    INGEST = "ingest"
    FEEDBACK = "feedback"
    READ = "read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is configured.

    Attributes:
        secret: The key itself, or ``sha256:`` and the 64 hex digits of its hash.
        name: Who holds it, for logs and pages; made from the hash where it is empty.
        quota: What it may send; None: no limit.
    """

    secret: str = field(repr=False)
    name: str = ""
    role: Role = Role.INGEST
    quota: Quota | None = None


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """Who showed a key."""

    name: str
    role: Role
    quota: Quota | None = None

    def may(self, role: Role) -> bool:
        """Return whether this owner may do what `role` is for."""
        if role is Role.FEEDBACK and self.role is Role.INGEST:
            return True
        return self.role in (role, Role.ADMIN)


ANYONE: Final = KeyOwner("anyone", Role.ADMIN)


class Keys:
    """The keys that are accepted; kept as hashes only."""

    def __init__(self, keys: Iterable[Key | str] = ()) -> None:
        """Take the accepted keys; with none at all, everybody is `ANYONE`.

        Args:
            keys: A string is an ingest key without a quota.

        Raises:
            ConfigurationError: A key is empty, twice there, or its hash is malformed.
        """
        self._owners: dict[bytes, KeyOwner] = {}
        for key in keys:
            entry = Key(key) if isinstance(key, str) else key
            digest = _digest(entry)
            if digest in self._owners:
                raise ConfigurationError(f"the key {_label(entry, digest)!r} is configured twice")
            self._owners[digest] = KeyOwner(_label(entry, digest), entry.role, entry.quota)

    @property
    def is_open(self) -> bool:
        """Whether no key is needed."""
        return not self._owners

    def check(self, headers: Mapping[str, str]) -> KeyOwner | None:
        """Find out who sends.

        Args:
            headers: By lower-case name. Read are ``authorization`` (``Bearer KEY``), then
                ``x-api-key``, then ``api-key``; the first that is there counts.

        Returns:
            The owner; None when no accepted key is shown.
        """
        if self.is_open:
            return ANYONE
        shown = _shown(headers)
        if shown is None:
            return None
        digest = hashlib.sha256(shown.encode("utf-8", "surrogatepass")).digest()
        found: KeyOwner | None = None
        for accepted, owner in self._owners.items():  # all of them: the time says nothing
            if hmac.compare_digest(accepted, digest):
                found = owner
        return found


def _shown(headers: Mapping[str, str]) -> str | None:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return next((headers[name].strip() for name in _HEADERS if name in headers), None)


def _digest(key: Key) -> bytes:
    text = key.secret.strip()
    if not text:
        raise ConfigurationError(f"the key {key.name!r} is empty; leave it out or give it a value")
    if not text.startswith(_HASH_PREFIX):
        return hashlib.sha256(text.encode()).digest()
    try:
        digest = bytes.fromhex(text.removeprefix(_HASH_PREFIX))
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise ConfigurationError(
            f"the key {key.name!r} begins with {_HASH_PREFIX!r} but isn't followed by 64 hex "
            "digits; make one with: printf %s KEY | sha256sum"
        )
    return digest


def _label(key: Key, digest: bytes) -> str:
    return key.name or f"key-{digest.hex()[:8]}"
