"""`llmobs scorers`: which there are, whether one keeps its contract, and what it costs."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from llmobs import registry
from llmobs.cli import options
from llmobs.cli.output import Column, count, print_rows, ratio
from llmobs.errors import ConfigurationError
from llmobs.web.client import Api

if TYPE_CHECKING:
    from llmobs.analyzer.score import Batch, Scorer
    from llmobs.records import SpanBatch

__all__ = ["scorers"]

# Long enough that the clock of CPU time, which ticks in milliseconds, does not show.
_MEASURED_CPU_S: Final = 0.5
_MOST_SPANS: Final = 20_000  # of a scorer that costs next to nothing
_BATCH: Final = 512


def _text(value: Any) -> str:
    return str(value or "–")


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.3g}"


def _words(value: Any) -> str:
    return ", ".join(value or ())


@click.group()
def scorers() -> None:
    """Show, check and measure what judges the texts."""


@scorers.command("list")
@options.config
@options.as_json
def list_scorers(config: Path | None, as_json: bool) -> None:
    """Show all scorers: those installed and those of the settings' files."""
    from llmobs.settings import load_settings

    settings = load_settings(config)
    rows = [*_installed(settings.scorers), *_of_files(settings.scorer_files)]
    columns: tuple[Column, ...] = (
        ("name", "scorer", _text),
        ("version", "version", _text),
        ("targets", "judges", _words),
        ("source", "from", _text),
        ("runs", "runs", lambda value: "yes" if value else "no"),
        ("error", "error", _text),
    )
    print_rows(rows, columns, as_json=as_json, empty="no scorer is installed")


@scorers.command()
@click.argument("file", type=click.Path(path_type=Path))
@options.as_json
@click.pass_context
def test(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Check that the scorers of a Python FILE keep their contract; exit 1 if one does not."""
    from llmobs.analyzer.score import load_file
    from llmobs.testing import check_scorer

    rows = []
    for scorer in load_file(file):
        try:
            check_scorer(scorer)
            problem = ""
        except AssertionError as error:
            problem = str(error)
        rows.append({**_described(scorer), "ok": not problem, "problem": problem})
    columns: tuple[Column, ...] = (
        ("name", "scorer", _text),
        ("version", "version", _text),
        ("targets", "judges", _words),
        ("ok", "ok", lambda value: "yes" if value else "no"),
        ("problem", "problem", _text),
    )
    print_rows(rows, columns, as_json=as_json, empty="")
    ctx.exit(0 if all(row["ok"] for row in rows) else 1)


@scorers.command()
@click.option("--scorer", "only", multiple=True, help="Measure this one; may be given again.")
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Python file of scorers; may be given again.",
)
@options.as_json
def bench(only: Sequence[str], files: Sequence[Path], as_json: bool) -> None:
    """Measure how many spans a scorer judges in a second of CPU, on texts that don't repeat.

    The texts are the demo's. What all scorers share (words, embeddings, the packaged heads) is
    made once for all of them: the first row, and not counted in the others.
    """
    from llmobs.analyzer.score import load_scorers

    names = tuple(only) if only or files else None
    columns: tuple[Column, ...] = (
        ("name", "scorer", _text),
        ("target", "judges", _text),
        ("n_spans", "spans", count),
        ("spans_per_cpu_s", "spans / CPU s", count),
    )
    print_rows(_measured(load_scorers(names, files)), columns, as_json=as_json, empty="no scorer")


@scorers.command()
@options.begin("7d")
@options.until
@click.option(
    "--fpr",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="Share of benign texts that may fail.",
)
@options.scorers
@options.as_json
@click.option("--toml", "as_toml", is_flag=True, help="Print what to put into llmobs.toml.")
@options.url
@options.token
def calibrate(
    since: str,
    until: str | None,
    fpr: float,
    scorers: Sequence[str],
    as_json: bool,
    as_toml: bool,
    url: str,
    token: str | None,
) -> None:
    """Find thresholds on the traffic of a running server, by service and language.

    Traffic counts as benign: attacks among it make a threshold stricter. The interval holds the
    threshold of all such traffic with 95 %; – where there are too few texts.
    """
    query = {"since": since, "until": until, "fpr": fpr, "scorer": ",".join(scorers) or None}
    rows = Api(url, token).get("calibration", **query)["rows"]
    columns: tuple[Column, ...] = (
        ("name", "scorer", _text),
        ("target", "judges", _text),
        ("service", "service", _text),
        ("language", "language", _text),
        ("n", "texts", count),
        ("rule", "fails", _text),
        ("interval", "95 %", _text),
        ("share", "flags", ratio),
        ("share_now", "now", ratio),
    )
    if as_toml:
        click.echo("\n\n".join(_toml(row) for row in rows if row["threshold"] is not None))
        return
    if not as_json:
        rows = [{**row, **_in_words(row)} for row in rows]
    print_rows(rows, columns, as_json=as_json, empty="no score with a verdict in that time")


def _in_words(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the rule and its interval as a table shows them."""
    sign = "≥" if row["fails"] == "from" else "<"
    return {
        "rule": "–" if row["threshold"] is None else f"{sign} {_number(row['threshold'])}",
        "interval": f"{_number(row['low'])} … {_number(row['high'])}",
    }


def _toml(row: Mapping[str, Any]) -> str:
    names = {"score": row["name"], **{key: row[key] for key in ("target", "service", "language")}}
    # A JSON string is a TOML string.
    lines = [
        f"{key} = {json.dumps(name, ensure_ascii=False)}" for key, name in names.items() if name
    ]
    rule = "fail_from" if row["fails"] == "from" else "fail_below"
    return "\n".join(["[[thresholds]]", *lines, f"{rule} = {float(row['threshold'])!r}"])


def _installed(chosen: Sequence[str]) -> Iterator[dict[str, Any]]:
    from llmobs.analyzer.score import GROUP, load_scorers

    for name in registry.names(GROUP):
        runs = tuple(chosen) == ("all",) or name in chosen
        try:
            (scorer,) = load_scorers([name])
        except ConfigurationError as error:
            yield {"name": name, "source": "installed", "runs": False, "error": str(error)}
            continue
        yield {**_described(scorer), "source": "installed", "runs": runs, "error": ""}


def _of_files(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    from llmobs.analyzer.score import load_file

    for path in files:
        try:
            found = load_file(path)
        except ConfigurationError as error:
            yield {"name": path.stem, "source": str(path), "runs": False, "error": str(error)}
            continue
        for scorer in found:
            yield {**_described(scorer), "source": str(path), "runs": True, "error": ""}


def _described(scorer: Scorer) -> dict[str, Any]:
    return {"name": scorer.name, "version": scorer.version, "targets": list(scorer.targets)}


def _measured(found: Sequence[Scorer]) -> Iterator[dict[str, Any]]:
    from llmobs.analyzer.score import Batch
    from llmobs.measures.text import TextEncoder, warm

    warm()
    encoder = TextEncoder.load()
    slices = _sample()

    def shared(batch: Batch) -> None:
        batch.embeddings("input"), batch.embeddings("output")

    def made() -> Iterator[Batch]:
        """Yield new batches without end, so that no answer is remembered."""
        return (Batch(each, encoder) for each in itertools.cycle(slices))

    def ready() -> Iterator[Batch]:
        for batch in made():
            shared(batch)
            yield batch

    yield {"name": "(shared)", "target": "both", **_rate(made(), shared)}
    for scorer in found:
        for target in scorer.targets:
            rate = _rate(ready(), partial(scorer.score, target=target))
            yield {"name": scorer.name, "target": target, **rate}


def _rate(batches: Iterator[Batch], judge: Callable[[Batch], object]) -> dict[str, float]:
    judge(next(batches))  # what it loads when first asked
    n_spans, spent_s = 0, 0.0
    for batch in batches:
        begun = time.process_time()
        judge(batch)
        spent_s += time.process_time() - begun
        n_spans += len(batch.spans)
        if spent_s >= _MEASURED_CPU_S or n_spans >= _MOST_SPANS:
            break
    return {"n_spans": n_spans, "spans_per_cpu_s": n_spans / max(spent_s, 1e-9)}


def _sample() -> list[SpanBatch]:
    """Return chats of the demo in batches, each question once."""
    from llmobs.demo.workload import make_plan
    from llmobs.testing import chat, spans

    answers = {call.prompt: call.answer for call in make_plan(speed=24, incidents=()).calls}
    rows = [chat(question, answer) for question, answer in answers.items()]
    return [spans(rows[start : start + _BATCH]) for start in range(0, len(rows), _BATCH)]
