"""Every step of the loops that changes something outside the process, and death before one,
or a failure of each.

The steps are found by wrapping the doors through which everything goes: the writer's system
calls, the store's statements, the state's transactions, a channel's `send`. A step is named
after what it does and the phase of the life it is in, as in ``working: insert spans``.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from llmobs.analyzer.log import SegmentReader, SegmentWriter, files, recent, writer
from llmobs.analyzer.store import SqliteState
from llmobs.analyzer.store.clients import Clients
from llmobs.errors import StoreError

__all__ = ["Steps"]

Name = Callable[..., str]
_STATEMENT = re.compile(
    r"(CREATE(?: OR REPLACE)?(?: MATERIALIZED)? (?:TABLE|VIEW)|ALTER TABLE|DELETE FROM|INSERT INTO)"
    r"(?: IF NOT EXISTS)? (\w+)"
)


class Steps:
    """Notes the steps of one process in a file, and kills it before one of them.

    Args:
        journal: Gets the name of each step, one a line, before it is done.
        survived: Steps that may be done; before the first other one the process dies.
            None: it lives.
        among: Steps whose name this does not match anywhere may be done, too.
        fails: Do not die but raise, once a step, as a full disk does.
    """

    def __init__(
        self,
        journal: Path,
        survived: Collection[str] | None,
        among: str | None = None,
        *,
        fails: bool = False,
    ) -> None:
        self.phase = "opening"
        self._journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._survived = None if survived is None else set(survived)
        self._fails = fails
        self._among = re.compile(among or "")

    def take(self, what: str) -> None:
        """Note a step, or die or raise before it.

        Raises:
            OSError: The step fails, this once; a `StoreError` for a step of the store.
        """
        name = what if what.startswith("log: ") else f"{self.phase}: {what}"
        os.write(self._journal, f"{name}\n".encode())
        if (
            self._survived is not None
            and name not in self._survived
            and self._among.search(name) is not None
        ):
            if self._fails:
                self._survived.add(name)
                if what.startswith("log: "):
                    raise OSError(errno.ENOSPC, "No space left on device")
                raise StoreError("the store failed: No space left on device")
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # until it arrives; nothing of this thread happens any more

    def install(self) -> None:
        """Wrap what leaves this process. The process ends with it: nothing is put back."""
        self._wrap(writer, "write_all", lambda *_: "log: write")
        self._wrap(writer, "sync_directory", lambda *_: "log: sync names")
        self._wrap(recent.Recent, "save", lambda *_: "log: save hashes")
        self._wrap(files.Numbers, "take", lambda *_: "log: take a number")
        self._wrap(Path, "rename", lambda path, _: f"log: rename {path.suffix}")
        self._wrap(SegmentWriter, "append", lambda *_: "log: queue")
        self._wrap(SegmentReader, "read", lambda *_: "log: read")
        self._wrap(SegmentReader, "remove", lambda *_: "log: remove")
        self._wrap(Clients, "insert", _insert_name)
        self._wrap(Clients, "command", lambda _, sql, *_a, **_o: _statement_name(sql))
        for name in ("commit", "announce", "delivered", "retry", "forget"):
            self._wrap(SqliteState, name, lambda *_, name=name, **more: f"state: {name}")

    def sync(self, descriptor: int) -> None:
        """Stand in for fdatasync."""
        self.take("log: fdatasync")
        os.fdatasync(descriptor)

    def _wrap(self, owner: Any, method: str, name: Name) -> None:
        real = getattr(owner, method)

        @functools.wraps(real)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            self.take(name(*arguments, **options))
            return real(*arguments, **options)

        setattr(owner, method, wrapped)


def _insert_name(_: Clients, table: str, rows: Any, token: str) -> str:
    # Tokens of a table's first block end in -0.
    is_later = re.fullmatch(r"\w+-\d+-[0-9a-f]{16}-[1-9]\d*", token) is not None
    return f"store: insert {table}{', a later block' if is_later else ''}"


def _statement_name(sql: str) -> str:
    found = _STATEMENT.match(sql.lstrip())
    what = " ".join(found.groups()) if found else sql.split(maxsplit=1)[0]
    return f"store: {what.lower()}"
