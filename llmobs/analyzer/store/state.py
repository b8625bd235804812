"""The small transactional part in SQLite: cursor, monitors, findings, alerts, outbox."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from llmobs.analyzer.store.base import Row
from llmobs.errors import StoreError
from llmobs.records import Alert, Cursor, Finding, MonitorStatus

__all__ = ["SqliteState", "open_state"]

_VERSION: Final = 2

_SCHEMA: Final = """
CREATE TABLE analysis (
  id INTEGER PRIMARY KEY CHECK (id = 1), cursor TEXT NOT NULL, monitors BLOB, completeness BLOB
) STRICT;
CREATE TABLE findings (
  id TEXT PRIMARY KEY, at_ns INTEGER NOT NULL, level TEXT NOT NULL,
  taken INTEGER NOT NULL DEFAULT 0, body TEXT NOT NULL
) STRICT;
CREATE INDEX findings_by_time ON findings (at_ns);
CREATE INDEX findings_waiting ON findings (at_ns) WHERE level = 'page' AND taken = 0;
CREATE TABLE statuses (place INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE alerts (
  id TEXT PRIMARY KEY, starts_at_ns INTEGER NOT NULL, state TEXT NOT NULL, body TEXT NOT NULL
) STRICT;
CREATE INDEX alerts_by_time ON alerts (starts_at_ns);
CREATE TABLE outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT, alert_id TEXT NOT NULL, event TEXT NOT NULL,
  channel TEXT NOT NULL, alert TEXT NOT NULL, due_ns INTEGER NOT NULL DEFAULT 0,
  tries INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
  delivered INTEGER NOT NULL DEFAULT 0,
  UNIQUE (alert_id, event, channel)
) STRICT;
CREATE INDEX outbox_due ON outbox (due_ns, id) WHERE delivered = 0;
"""
# From each earlier version to the next.
_UPGRADES: Final = {1: "ALTER TABLE analysis ADD COLUMN completeness BLOB;"}


def open_state(path: Path) -> SqliteState:
    """Open the state's file, made where it is missing.

    Raises:
        StoreError: The file can't be opened or was made by a newer llmobs.
    """
    return SqliteState(path)


class SqliteState:
    """Cursor, monitors, findings, alerts and outbox; see `base.State`.

    Every change is one transaction that is on disk when the method returns. Threads may share
    it: they take turns.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            # autocommit: transactions begin and end where this file says, nowhere else.
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        except sqlite3.Error as error:
            raise _cant_open(path, error) from error
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA busy_timeout = 5000")
            self._prepare(path)
        except sqlite3.Error as error:
            self._db.close()
            raise _cant_open(path, error) from error
        except StoreError:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def cursor(self) -> Cursor:
        """Return the last analysed segments; see `base.State.cursor`."""
        row = self._first("SELECT cursor FROM analysis")
        return {} if row is None else {int(k): v for k, v in json.loads(row[0]).items()}

    def monitor_state(self) -> bytes | None:
        """Return the monitors' state; see `base.State.monitor_state`."""
        row = self._first("SELECT monitors FROM analysis")
        return None if row is None else row[0]

    def completeness_state(self) -> bytes | None:
        """Return the state of completeness; see `base.State.completeness_state`."""
        row = self._first("SELECT completeness FROM analysis")
        return None if row is None else row[0]

    def commit(
        self,
        cursor: Cursor,
        monitor_state: bytes | None,
        findings: Sequence[Finding],
        statuses: Sequence[MonitorStatus],
        completeness_state: bytes | None = None,
    ) -> None:
        """Move cursor, monitors and findings together; see `base.State.commit`."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO analysis (id, cursor, monitors, completeness) "
                "VALUES (1, ?, ?, ?)",
                (json.dumps(dict(cursor)), monitor_state, completeness_state),
            )
            # A finding that was found again keeps whether it was announced.
            db.executemany(
                "INSERT INTO findings (id, at_ns, level, body) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET level = excluded.level, body = excluded.body",
                [(f.id, f.at_ns, f.level, json.dumps(f.to_json())) for f in findings],
            )
            db.execute("DELETE FROM statuses")
            db.executemany(
                "INSERT INTO statuses (body) VALUES (?)",
                [(json.dumps(status.to_json()),) for status in statuses],
            )

    def unannounced(self, limit: int = 100) -> list[Finding]:
        """Return findings to announce; see `base.State.unannounced`."""
        rows = self._all(
            "SELECT body FROM findings WHERE level = 'page' AND taken = 0 "
            "ORDER BY at_ns, id LIMIT ?",
            (limit,),
        )
        return [_finding(body) for (body,) in rows]

    def announce(
        self, finding_ids: Sequence[str], alerts: Sequence[Alert], channels: Sequence[str] = ()
    ) -> None:
        """Take findings, write alerts, fill the outbox; see `base.State.announce`."""
        with self._transaction() as db:
            db.executemany(
                "UPDATE findings SET taken = 1 WHERE id = ?", [(one,) for one in finding_ids]
            )
            for alert in alerts:
                body = json.dumps(alert.to_json())
                db.execute(
                    "INSERT OR REPLACE INTO alerts (id, starts_at_ns, state, body) "
                    "VALUES (?, ?, ?, ?)",
                    (alert.id, alert.starts_at_ns, alert.state, body),
                )
                db.executemany(
                    "INSERT INTO outbox (alert_id, event, channel, alert) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT DO NOTHING",
                    [(alert.id, _event(alert), channel, body) for channel in channels],
                )

    def outbox(self, now_ns: int, limit: int = 100) -> list[tuple[int, str, Alert, Finding | None]]:
        """Return due deliveries; see `base.State.outbox`."""
        rows = self._all(
            "SELECT outbox.id, channel, alert, findings.body FROM outbox "
            "LEFT JOIN findings ON findings.id = alert ->> 'finding_id' "
            "WHERE delivered = 0 AND due_ns <= ? ORDER BY due_ns, outbox.id LIMIT ?",
            (now_ns, limit),
        )
        return [
            (number, channel, _alert(alert), _finding(finding) if finding else None)
            for number, channel, alert, finding in rows
        ]

    def delivered(self, delivery_id: int) -> None:
        """Forget a delivery; see `base.State.delivered`."""
        with self._transaction() as db:
            # The row stays as the key that keeps the same news from being sent again.
            db.execute("UPDATE outbox SET delivered = 1, reason = '' WHERE id = ?", (delivery_id,))

    def retry(self, delivery_id: int, at_ns: int, reason: str) -> None:
        """Try a delivery again later; see `base.State.retry`."""
        with self._transaction() as db:
            db.execute(
                "UPDATE outbox SET due_ns = ?, tries = tries + 1, reason = ? WHERE id = ?",
                (at_ns, reason, delivery_id),
            )

    def waiting(self) -> list[Row]:
        """Return undelivered news; see `base.State.waiting`."""
        rows = self._all(
            "SELECT id, channel, alert_id, event, due_ns, tries, reason FROM outbox "
            "WHERE delivered = 0 ORDER BY due_ns, id LIMIT 1000"
        )
        names = ("delivery_id", "channel", "alert_id", "event", "due_ns", "tries", "reason")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def alerts(self, state: str | None = None, limit: int = 200) -> list[Alert]:
        """Return alerts, newest first; see `base.State.alerts`."""
        rows = self._all(
            "SELECT body FROM alerts WHERE ?1 IS NULL OR state = ?1 "
            "ORDER BY starts_at_ns DESC, id LIMIT ?2",
            (state, limit),
        )
        return [_alert(body) for (body,) in rows]

    def findings(self, since_ns: int = 0, limit: int = 500) -> list[Finding]:
        """Return findings, newest first; see `base.State.findings`."""
        rows = self._all(
            "SELECT body FROM findings WHERE at_ns >= ? ORDER BY at_ns DESC, id LIMIT ?",
            (since_ns, limit),
        )
        return [_finding(body) for (body,) in rows]

    def finding(self, finding_id: str) -> Finding | None:
        """Return one finding; see `base.State.finding`."""
        row = self._first("SELECT body FROM findings WHERE id = ?", (finding_id,))
        return None if row is None else _finding(row[0])

    def forget(self, traces: Collection[str], texts: Collection[str]) -> int:
        """Take traces and texts out of findings; see `base.State.forget`."""
        n_changed = 0
        with self._transaction() as db:
            for number, body in db.execute("SELECT id, body FROM findings").fetchall():
                finding = json.loads(body)
                kept = {
                    **finding,
                    "examples": [one for one in finding["examples"] if one not in traces],
                    "evidence": _without(finding["evidence"], texts),
                }
                if kept != finding:
                    n_changed += 1
                    db.execute(
                        "UPDATE findings SET body = ? WHERE id = ?", (json.dumps(kept), number)
                    )
        return n_changed

    def statuses(self) -> list[Row]:
        """Return the monitors' statuses; see `base.State.statuses`."""
        return [
            json.loads(body) for (body,) in self._all("SELECT body FROM statuses ORDER BY place")
        ]

    def _prepare(self, path: Path) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise StoreError(
                f"state file {str(path)!r} has version {version}, this llmobs knows {_VERSION}; "
                "install the newer llmobs again"
            )
        if version < _VERSION:
            changes = [_UPGRADES[before] for before in range(version, _VERSION)] if version else []
            script = "\n".join(changes or [_SCHEMA])
            self._db.executescript(
                f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {_VERSION}; COMMIT;"
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise StoreError(f"the state could not be written: {error}") from error
                raise

    def _all(self, sql: str, bound: tuple[Any, ...] = ()) -> list[Any]:
        with self._lock:
            try:
                return self._db.execute(sql, bound).fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"the state could not be read: {error}") from error

    def _first(self, sql: str, bound: tuple[Any, ...] = ()) -> Any:
        return next(iter(self._all(sql, bound)), None)


def _cant_open(path: Path, error: sqlite3.Error) -> StoreError:
    return StoreError(f"state file {str(path)!r} can't be opened: {error}")


def _without(value: Any, texts: Collection[str]) -> Any:
    """Return JSON without some texts in its lists."""
    if isinstance(value, dict):
        return {key: _without(item, texts) for key, item in value.items()}
    if isinstance(value, list):
        kept = [item for item in value if not (isinstance(item, str) and item in texts)]
        return [_without(item, texts) for item in kept]
    return value


def _event(alert: Alert) -> str:
    """Name the news about an alert: told once a channel, however often it is announced."""
    return f"{alert.state} {alert.n_findings}"


def _alert(body: str) -> Alert:
    return Alert(**json.loads(body))


def _finding(body: str) -> Finding:
    values = json.loads(body)
    values["examples"] = tuple(values["examples"])
    return Finding(**{field.name: values[field.name] for field in fields(Finding)})
