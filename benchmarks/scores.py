"""How fast and how good the scorers are: ``python -m benchmarks.scores [--data DIR] [--json]``.

Speed in CPU time of this one process, over distinct texts (nothing is saved by repetition).
Quality on the tenth of each labelled file that training never saw. With ``--leave-out`` (needs
scikit-learn and the whole files) also on each source by heads that were trained without it: the
honest figure, and what to expect of texts from elsewhere.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from llmobs.analyzer.score import ScoreStage, load_scorers
from llmobs.measures import text as measures
from llmobs.measures.text.indirect import sentences
from llmobs.measures.text.train.corpora import Corpora
from llmobs.records import SpanBatch
from tests.analyzer.score.spans import chat, spans

_BATCH: Final = 256
_TEST_DATA: Final = Path(__file__).parent.parent / "tests/measures/text/data"
_SOURCES: Final = {
    "toxicity": ("toxicity_davidson", "toxicity_surge", "toxicity_wikipedia"),
    "injection": (
        "injection_inthewild_jailbreaks",
        "injection_bipia_train",
        "injection_neuralchemy",
    ),
    "refusal": ("refusal_xstest",),
}
_PII_KINDS: Final = frozenset(
    ("EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN", "IP_ADDRESS")
)
_SCHEMA: Final = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "length": {"type": "integer", "minimum": 0}},
    "required": ["answer", "length"],
    "additionalProperties": False,
}
Floats = npt.NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        default=_TEST_DATA,
        help="Folder of NAME.jsonl.gz files",
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON object a line")
    parser.add_argument(
        "--leave-out", action="store_true", help="Train without each source and judge it"
    )
    arguments = parser.parse_args()
    corpora = Corpora(arguments.data, held_out=True)
    rows = [*speed(corpora), *quality(corpora)]
    if arguments.leave_out:
        rows += left_out(arguments.data)
    for row in rows:
        print(
            json.dumps(row) if arguments.json else "  ".join(f"{k}={_plain(row[k])}" for k in row)
        )


def speed(corpora: Corpora) -> list[dict[str, Any]]:
    """Time every measure and the whole stage over at most 4,096 pairs of texts."""
    pairs = [(row["query"], row["text"]) for row in corpora.rows("relevance_halueval")]
    prompts = [row["text"] for row in corpora.rows("benign_prompts")]
    long = [row["text"] for row in corpora.rows("injection_inthewild_jailbreaks")]
    inputs = list(dict.fromkeys([*(q for q, _ in pairs), *prompts, *long]))[:4096]
    replies = [answer for _, answer in pairs]
    outputs = [f"{replies[i % len(replies)]} {i}" for i in range(len(inputs))]  # all different
    texts = [*inputs, *outputs]
    encoder = measures.TextEncoder.load()

    def heads(batch: Sequence[str]) -> None:
        features = encoder.encode(batch)
        for name in ("toxicity", "injection", "refusal"):
            measures.load_head(name).judge(features)

    def relevance(batch: Sequence[str]) -> None:
        half = len(batch) // 2
        measures.relevance(batch[:half], batch[half:])

    def grounded(batch: Sequence[str]) -> None:
        half = len(batch) // 2  # every answer against a document of three texts
        documents = [" ".join(batch[half + i : half + i + 3]) for i in range(half - 3)]
        measures.groundedness(batch[: half - 3], documents)

    timed: dict[str, Callable[[Sequence[str]], object]] = {
        "embedding": lambda batch: encoder.encode(batch).embeddings,
        "toxicity": measures.toxicity,
        "injection": measures.injection,
        "refusal": measures.refusal,
        "toxicity+injection+refusal": heads,
        "indirect_injection": measures.indirect_injection,
        "relevance": relevance,
        "groundedness": grounded,
        "repetition": measures.repetition,
        "pii": measures.pii,
        "language": measures.language,
    }
    rows = [
        {
            "what": "speed",
            "scorer": name,
            "texts_per_cpu_s": len(texts) / _cpu_s(function, texts),
            "mean_chars": float(np.mean([len(text) for text in texts])),
        }
        for name, function in timed.items()
    ]
    answers = [json.dumps({"answer": text, "length": len(text)}) for text in texts]
    schema = json.dumps(_SCHEMA)
    seconds = _cpu_s(lambda batch: measures.json_faults(batch, [schema] * len(batch)), answers)
    rows.append(
        {"what": "speed", "scorer": "format", "texts_per_cpu_s": len(answers) / seconds}
        | {"mean_chars": float(np.mean([len(answer) for answer in answers]))}
    )
    stage = ScoreStage(load_scorers(), time_box_s=60)
    batch_s = _cpu_s(
        lambda batch: stage.score(_as_spans(batch)), list(zip(inputs, outputs, strict=True))
    ) - _cpu_s(_as_spans, list(zip(inputs, outputs, strict=True)))
    rows.append(
        {
            "what": "speed",
            "scorer": "all",
            "us_per_span": 1e6 * batch_s / len(inputs),
            "all_texts_per_cpu_s": len(texts) / batch_s,
        }
    )
    return rows


def quality(corpora: Corpora) -> list[dict[str, Any]]:
    """Judge every held-out source; AUC and AP against its own negatives, or benign prompts."""
    benign = [row["text"] for row in corpora.rows("benign_prompts")]
    rows: list[dict[str, Any]] = []
    for name, sources in _SOURCES.items():
        head = measures.load_head(name)
        plain = head.judge(measures.TextEncoder.load().encode(benign)).probabilities
        for source in sources:
            if not (corpora.folder / f"{source}.jsonl.gz").exists():
                continue
            texts = corpora.rows(source)
            labels = np.array([int(row["label"]) for row in texts])
            values = head.judge(
                measures.TextEncoder.load().encode([row["text"] for row in texts])
            ).probabilities
            if labels.all():
                labels = np.concatenate((labels, np.zeros(len(plain), int)))
                values = np.concatenate((values, plain))
            rows.append(
                {"what": "quality", "scorer": name, "source": source}
                | binary(labels, values, plain)
                | {
                    "recall_at_threshold": float((values[labels == 1] >= head.threshold).mean()),
                    "benign_flagged": float((plain >= head.threshold).mean()),
                }
            )
    rows.append(refusal_quality(benign))
    rows += relevance_quality(corpora)
    rows += groundedness_quality(corpora)
    rows.append(repetition_quality(corpora, benign))
    strings = corpora.rows("language_ui_strings")
    found, _ = measures.language([row["text"] for row in strings])
    right = [code == row["label"] for code, row in zip(found, strings, strict=True)]
    rows.append(
        {
            "what": "quality",
            "scorer": "language",
            "source": "language_ui_strings",
            "n": len(right),
            "accuracy": float(np.mean(right)),
        }
    )
    rows.append(pii_quality(corpora, benign))
    return rows


def left_out(folder: Path) -> list[dict[str, Any]]:
    """Judge every source by what was learned from the others alone."""
    from llmobs.measures.text.train.__main__ import encoder_for, injection, toxicity
    from llmobs.measures.text.train.documents import fit_documents, indirect
    from llmobs.measures.text.train.fit import fit_head

    held_out = Corpora(folder, held_out=True)
    prompts = [row["text"] for row in held_out.rows("benign_prompts")]
    # Trained on by no head for prompts: harmless and harmful questions full of telling words.
    hard = [row["query"] for row in _all_rows(folder, "refusal_xstest")]
    benign = [*prompts, *dict.fromkeys(hard)] if hard else prompts
    rows: list[dict[str, Any]] = []
    for make in (toxicity, injection):
        for source in _SOURCES[make.__name__]:
            task = make(Corpora(folder, left_out=frozenset({source})))
            encoder = encoder_for([task])
            head = fit_head(encoder, task)
            texts = _all_rows(folder, source)
            labels = np.array([int(row["label"]) for row in texts])
            plain = head.judge(encoder.encode(prompts)).probabilities
            mixed = head.judge(encoder.encode(benign)).probabilities
            values = head.judge(encoder.encode([row["text"] for row in texts])).probabilities
            found = values[labels == 1]
            if labels.all():
                labels = np.concatenate((labels, np.zeros(len(plain), int)))
                values = np.concatenate((values, plain))
            rows.append(
                {"what": "left_out", "scorer": make.__name__, "source": source}
                | binary(labels, values, plain)
                | {
                    "auc_to_benign": _auc(found, mixed),
                    "recall_at_1pct_of_mixed": float((found > np.quantile(mixed, 0.99)).mean()),
                    "recall_at_threshold": float((found >= head.threshold).mean()),
                    "benign_flagged": float((mixed >= head.threshold).mean()),
                }
            )
    corpora = Corpora(folder, left_out=frozenset({"injection_bipia_train"}))
    task = indirect(corpora)
    encoder = encoder_for([task])
    model = fit_documents(encoder, fit_head(encoder, task), corpora)
    texts = _all_rows(folder, "injection_bipia_train")
    labels = np.array([int(row["label"]) for row in texts])
    values = model.judge([row["text"] for row in texts], encoder).probabilities
    whole = model.judge(_documents(held_out), encoder).probabilities
    rows.append(
        {"what": "left_out", "scorer": "indirect_injection", "source": "injection_bipia_train"}
        | binary(labels, values, whole)
        | {
            "recall_at_threshold": float((values[labels == 1] >= model.threshold).mean()),
            "benign_flagged": float((whole >= model.threshold).mean()),
        }
    )
    return rows


def _all_rows(folder: Path, source: str) -> list[dict[str, Any]]:
    if not (folder / f"{source}.jsonl.gz").exists():
        return []
    return [*Corpora(folder).rows(source), *Corpora(folder, held_out=True).rows(source)]


def _documents(corpora: Corpora) -> list[str]:
    """Return answers and comments, which read like documents, with nothing planted in them."""
    comments = [row.text for row in corpora.examples("toxicity_wikipedia") if not row.label]
    return [*dict.fromkeys(corpora.related("relevance_halueval")), *comments]


def _auc(positive: Floats, negative: Floats) -> float:
    labels = np.repeat((1, 0), (len(positive), len(negative)))
    return float(binary(labels, np.concatenate((positive, negative)), negative)["auc"])


def relevance_quality(corpora: Corpora) -> list[dict[str, Any]]:
    """Judge answers to their own question, and to another one's."""
    rows = corpora.rows("relevance_halueval")
    pairs = {"relevance_halueval": [(r["query"], r["text"], int(r["label"])) for r in rows]}
    # A source that the model was not fitted to, with the answer to the question 50 rows on.
    rows = [r for r in _all_rows(corpora.folder, "refusal_xstest") if not int(r["label"])]
    pairs["refusal_xstest"] = [(row["query"], row["text"], 1) for row in rows] + [
        (row["query"], other["text"], 0)
        for row, other in zip(rows, rows[50:] + rows[:50], strict=True)
        if row["query"] != other["query"]
    ]
    threshold = measures.load_relevance().threshold
    results: list[dict[str, Any]] = []
    for source, triples in pairs.items():
        if triples:
            asked, answered, own = zip(*triples, strict=True)
            values, labels = measures.relevance(asked, answered), np.array(own)
            known = np.isfinite(values)
            foreign = values[known & (labels == 0)]
            results.append(
                {"what": "quality", "scorer": "relevance", "source": source}
                | binary(labels[known], values[known], foreign)
                | {
                    "own_failed": float((values[labels == 1] < threshold).mean()),
                    "foreign_failed": float((foreign < threshold).mean()),
                }
            )
    return results


def groundedness_quality(corpora: Corpora) -> list[dict[str, Any]]:
    """Judge answers written for the tests, by what is wrong with them, and sentences cut out.

    No public set with contexts is at hand: the written ones are few and clear. A sentence that
    was cut out of a text is true and on the topic, and nothing but luck bears it out in the rest.
    """
    lines = (_TEST_DATA / "grounded_written.jsonl").read_text(encoding="utf-8").splitlines()
    written = [json.loads(line) for line in lines]
    values = measures.groundedness(
        [row["text"] for row in written], [row["context"] for row in written]
    )
    kinds = np.array([row["kind"] for row in written])
    threshold = measures.load_grounding().threshold
    own = values[kinds == "borne_out"]
    rows: list[dict[str, Any]] = [
        {
            "what": "quality",
            "scorer": "groundedness",
            "source": f"grounded_written: {kind}",
            "n": int((kinds == kind).sum()),
            "auc": _auc(own, values[(kinds == kind) & np.isfinite(values)]),
            "found_at_threshold": float((values[kinds == kind] <= threshold).mean()),
            "own_failed": float((own <= threshold).mean()),
        }
        for kind in ("invented", "changed", "turned_round")
    ]
    texts = list(dict.fromkeys(corpora.related("relevance_halueval")))
    cut_out, rest = [], []
    for text in texts:
        cuts = sentences(text)
        for start, end in cuts if 5 <= len(cuts) <= 60 else ():
            cut_out.append(text[start:end])
            rest.append(text[:start] + text[end:])
    known = measures.groundedness(cut_out, rest)
    known = known[np.isfinite(known)]
    rows.append(
        {
            "what": "quality",
            "scorer": "groundedness",
            "source": "relevance_halueval: sentences cut out of the document",
            "n": len(known),
            "found_at_threshold": float((known <= threshold).mean()),
        }
    )
    return rows


def repetition_quality(corpora: Corpora, benign: Sequence[str]) -> dict[str, Any]:
    """Judge benign texts, and answers whose last ten words go on for three times their length."""
    answers = list(dict.fromkeys(corpora.related("relevance_halueval")))
    looped = [
        f"{text} {' '.join(text.split()[-10:] * (1 + 3 * len(text.split()) // 10))}"
        for text in answers
    ]
    values = measures.repetition(looped)
    plain = measures.repetition([*answers, *benign])
    known, plain = values[np.isfinite(values)], plain[np.isfinite(plain)]
    return {
        "what": "quality",
        "scorer": "repetition",
        "source": "relevance_halueval: answers that end in a loop",
        "n": len(known),
        "auc": _auc(known, plain),
        "recall_at_threshold": float((known >= measures.REPETITION_THRESHOLD).mean()),
        "benign_flagged": float((plain >= measures.REPETITION_THRESHOLD).mean()),
        "benign_highest": float(plain.max()),
    }


def refusal_quality(benign: Sequence[str]) -> dict[str, Any]:
    """Judge the refusals and answers that were written for the tests."""
    lines = (_TEST_DATA / "refusals_written.jsonl").read_text(encoding="utf-8").splitlines()
    written = [json.loads(line) for line in lines]
    labels = np.array([row["label"] for row in written])
    values = measures.refusal([row["text"] for row in written])
    threshold = measures.load_head("refusal").threshold
    return {
        "what": "quality",
        "scorer": "refusal",
        "source": "refusals_written",
        **binary(labels, values, values[labels == 0]),
        "recall_at_threshold": float((values[labels == 1] >= threshold).mean()),
        "benign_flagged": float((measures.refusal(benign) >= threshold).mean()),
    }


def pii_quality(corpora: Corpora, benign: Sequence[str]) -> dict[str, Any]:
    """Count labelled items that were hit by a span of the same kind, and spans that hit none."""
    n_items = n_hit = n_spans = n_right = 0
    texts = corpora.rows("pii_presidio_generated")
    for row, spans_found in zip(texts, measures.pii([row["text"] for row in texts]), strict=True):
        wanted = [item for item in row["spans"] if item[2] in _PII_KINDS]
        found = [span for span in spans_found if span.kind in _PII_KINDS]
        n_items += len(wanted)
        n_spans += len(found)
        n_hit += sum(
            any(s.start < end and start < s.end and s.kind == kind for s in found)
            for start, end, kind in wanted
        )
        n_right += sum(
            any(s.start < end and start < s.end for start, end, _ in row["spans"]) for s in found
        )
    recall, precision = n_hit / n_items, n_right / n_spans
    return {
        "what": "quality",
        "scorer": "pii",
        "source": "pii_presidio_generated",
        "n": n_items,
        "recall": recall,
        "precision": precision,
        "f1": 2 * recall * precision / (recall + precision),
        "benign_flagged": float(np.mean([bool(found) for found in measures.pii(benign)])),
    }


def binary(labels: npt.NDArray[np.int64], values: Floats, benign: Floats) -> dict[str, Any]:
    """Return AUC, average precision, and recall where 1 % of the benign texts are flagged."""
    n_positive = int(labels.sum())
    ranks = rankdata(values)[labels == 1].sum()
    auc = (ranks - n_positive * (n_positive + 1) / 2) / (n_positive * (len(labels) - n_positive))
    order = np.argsort(-values, kind="stable")
    hits = labels[order].cumsum()
    precision = hits / np.arange(1, len(labels) + 1)
    limit = np.sort(benign)[-max(1, len(benign) // 100)]
    return {
        "n": len(labels),
        "n_positive": n_positive,
        "auc": float(auc),
        "ap": float(precision[labels[order] == 1].mean()),
        "recall_at_1pct_fpr": float((values[labels == 1] > limit).mean()),
    }


def _as_spans(pairs: Sequence[tuple[str, str]]) -> SpanBatch:
    return spans([chat(question, answer) for question, answer in pairs])


def _cpu_s(function: Callable[[Any], object], items: Sequence[Any]) -> float:
    """Return the least CPU time of three rounds, in batches of 256; the first warms up."""
    rounds = []
    for _ in range(3):
        start = time.process_time()
        for i in range(0, len(items), _BATCH):
            function(items[i : i + _BATCH])
        rounds.append(time.process_time() - start)
    return min(rounds)


def _plain(value: object) -> str:
    return f"{value:,.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
