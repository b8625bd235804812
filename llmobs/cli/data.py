"""`llmobs replay`: sends recorded telemetry through the front door."""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from rich.progress import DownloadColumn

from llmobs.cli import options
from llmobs.cli.journal import Journal
from llmobs.cli.output import progress
from llmobs.cli.recorded import Recorded, read_recorded
from llmobs.cli.sender import Answer, Sender
from llmobs.errors import ConfigurationError

if TYPE_CHECKING:  # the command line starts without Arrow
    from llmobs.records import Signal

__all__ = ["replay"]


@click.command()
@click.argument(
    "paths",
    metavar="FILES",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
)
@options.endpoint("--endpoint")
@options.key
@click.option(
    "--signal",
    type=click.Choice(["traces", "logs", "metrics"]),
    default="traces",
    show_default=True,
    help="What protobuf files hold; others say so themselves.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Requests in flight.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Spans (or records) a second at most [default: as fast as the server takes them].",
)
@options.patience
@click.option("--resume", is_flag=True, help="Go on where an interrupted replay stopped.")
@options.as_json
def replay(
    paths: tuple[Path, ...],
    endpoint: str,
    key: str | None,
    signal: Signal,
    concurrency: int,
    rate: float | None,
    patience_s: float,
    resume: bool,
    as_json: bool,
) -> None:
    """Send recorded FILES to a server; exit 1 when it refused something.

    Files are what the Collector's file exporter writes (JSON lines or protobuf, also packed
    with gzip or zstd) and what `llmobs export` writes (spans and events in Parquet; scores are
    made anew). Of a folder all files are sent. A full server is waited for.
    """
    files = list(_files(paths))
    sender = Sender(endpoint, key=key, patience_s=patience_s)
    journal = Journal(paths[0], endpoint, resume=resume)
    try:
        sender.check()
        requests = _paced(_requests(files, signal, journal), rate)
        with _Bar(files, quiet=as_json) as shown:
            summary = _send(sender, requests, concurrency, journal, shown)
    finally:
        sender.close()
    _report(summary, len(files), as_json=as_json)
    if summary.refused or summary.n_rejected:
        raise click.exceptions.Exit(1)


class _FromFile(NamedTuple):
    path: Path
    request: Recorded


@dataclass
class _Summary:
    """What became of a replay, counted as its requests are answered."""

    n_requests: int = 0
    n_items: int = 0
    n_bytes: int = 0
    n_retries: int = 0
    n_rejected: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.monotonic)

    def count(self, request: Recorded, answer: Answer) -> None:
        self.n_requests += 1
        self.n_bytes += len(request.body)
        self.n_retries += answer.n_retries
        if answer.refused:
            self.refused[answer.refused] += 1
            return
        self.n_items += request.n_items - answer.n_rejected
        self.n_rejected += answer.n_rejected
        if answer.n_rejected or answer.message:
            self.messages[answer.message] += answer.n_rejected

    def to_json(self) -> dict[str, Any]:
        return {
            "n_requests": self.n_requests,
            "n_accepted": self.n_requests - self.refused.total(),
            "n_refused": self.refused.total(),
            "n_items": self.n_items,
            "n_rejected_items": self.n_rejected,
            "n_retries": self.n_retries,
            "n_bytes": self.n_bytes,
            "duration_s": round(time.monotonic() - self.started, 3),
            "refused": dict(self.refused.most_common(20)),
            "rejected": dict(self.messages.most_common(20)),
        }


def _report(summary: _Summary, n_files: int, *, as_json: bool) -> None:
    values = summary.to_json()
    if as_json:
        click.echo(json.dumps({"n_files": n_files, **values}))
        return
    click.echo(
        f"{values['n_accepted']:,} requests with {summary.n_items:,} spans or records sent "
        f"({summary.n_bytes / 1e6:,.1f} MB in {values['duration_s']:.1f} s, "
        f"{summary.n_retries} sent again)",
        err=True,
    )
    for reason, n in values["refused"].items():
        click.echo(f"{n:,} requests refused: {reason}", err=True)
    for message, n in values["rejected"].items():
        click.echo(f"{n:,} spans or records left out: {message or 'no reason given'}", err=True)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """Return the files of all paths, those of a folder by name."""
    n = 0
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in inside:
            is_hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
            is_scores = file.name.startswith("scores-") and file.suffix == ".parquet"
            if file.is_file() and not is_hidden and not is_scores:
                n += 1
                yield file
    if not n:
        raise ConfigurationError("there is nothing to replay: no file but scores, if any")


def _requests(files: Sequence[Path], signal: Signal, journal: Journal) -> Iterator[_FromFile]:
    for path in files:
        for request in read_recorded(path, signal, journal.start_of(path)):
            yield _FromFile(path, request)


def _paced(requests: Iterable[_FromFile], rate: float | None) -> Iterator[_FromFile]:
    """Hand requests on, but not faster than so many items a second."""
    due = time.monotonic()
    for item in requests:
        if rate is not None:
            now = time.monotonic()
            time.sleep(max(0.0, due - now))
            due = max(due, now) + item.request.n_items / rate
        yield item


class _Bar:
    """One bar over the bytes of all files, for people, on stderr."""

    def __init__(self, files: Sequence[Path], *, quiet: bool) -> None:
        self._progress = progress(DownloadColumn(), quiet=quiet)
        self._before: dict[Path, int] = {}
        total = 0
        for path in files:
            self._before[path] = total
            total += path.stat().st_size
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def show(self, item: _FromFile) -> None:
        """Show that a request was answered."""
        done = self._before[item.path] + item.request.n_read
        self._progress.update(self._task, completed=done, description=item.path.name)


def _send(
    sender: Sender,
    requests: Iterable[_FromFile],
    concurrency: int,
    journal: Journal,
    shown: _Bar,
) -> _Summary:
    summary = _Summary()
    try:
        for item, answer in _in_flight(sender, requests, concurrency):
            summary.count(item.request, answer)
            journal.note(item.path, item.request.end)
            shown.show(item)
    except BaseException:
        journal.write()
        raise
    journal.remove()
    return summary


def _in_flight(
    sender: Sender, requests: Iterable[_FromFile], concurrency: int
) -> Iterator[tuple[_FromFile, Answer]]:
    """Send requests, at most so many at a time, and hand them back in order."""
    with ThreadPoolExecutor(concurrency, thread_name_prefix="llmobs-replay") as pool:
        waiting: deque[tuple[_FromFile, Future[Answer]]] = deque()
        try:
            for item in requests:
                waiting.append((item, pool.submit(sender.send, item.request)))
                if len(waiting) > 2 * concurrency:
                    done, answer = waiting.popleft()
                    yield done, answer.result()
            for done, answer in waiting:
                yield done, answer.result()
        except BaseException:
            sender.stop()
            pool.shutdown(cancel_futures=True)
            raise
