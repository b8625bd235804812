"""Build the demo's data from its public sources: `python -m llmobs.demo.build_data SOURCE_DIR`.

`SOURCE_DIR` holds ``dev/`` (labelled texts) and ``drift/`` (prompts, the Azure trace), as
described in ``data/README.md`` beside the result. Deterministic: the same sources give the
same bytes. Attacks and toxic texts come from the tenth that no scorer was trained on
(sha256 of the text, modulo 10, is 0).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

SEED: Final = 20231116  # the day of the Azure trace
HERE: Final = Path(__file__).parent / "data"
MAX_CHARS: Final = 1200


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read a gzipped JSON-lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def held_out(text: str) -> bool:
    """Tell whether the text is in the tenth that training never saw."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big") % 10 == 0


def prompts(source: Path, prefix: str) -> list[tuple[str, str]]:
    """Return (group, text) of the prompts of one group."""
    out = []
    with gzip.open(source / "drift" / "texts.tsv.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            kind, group, _language, text = line.rstrip("\n").split("\t")
            if kind == "prompt" and group.startswith(prefix):
                out.append((group.removeprefix(prefix), text))
    return out


def build(source: Path) -> dict[str, list[Any]]:
    """Choose the texts of the demo."""
    pick = random.Random(SEED)  # noqa: S311 - a choice of samples, not a secret

    def some(items: list[Any], n: int) -> list[Any]:
        return pick.sample(items, min(n, len(items)))

    dev = source / "dev"
    pairs = [
        [row["query"][:MAX_CHARS], row["text"][:MAX_CHARS]]
        for row in rows(dev / "relevance_halueval.jsonl.gz")
        if row["label"] == 1
    ]
    toxic = [
        row["text"][:MAX_CHARS]
        for row in rows(dev / "toxicity_surge.jsonl.gz")
        if row["label"] == 1 and held_out(row["text"])
    ]
    attacks = [
        row["text"][:MAX_CHARS]
        for name in ("injection_inthewild_jailbreaks", "injection_neuralchemy")
        for row in rows(dev / f"{name}.jsonl.gz")
        if row["label"] == 1 and held_out(row["text"])
    ]
    new_topics = prompts(source, "clinc/travel/") + prompts(source, "clinc/auto_and_commute/")
    return {
        "assistant": pairs,
        "support": [list(item) for item in some(prompts(source, "banking77/"), 1500)],
        "tutor": [text for _, text in some(prompts(source, "gsm8k"), 700)],
        "new_topics": [list(item) for item in some(new_topics, 500)],
        "toxic": toxic,
        "attacks": some(attacks, 300),
    }


def main(source: Path) -> None:
    """Write ``texts.json.gz`` and ``azure_llm_2023.npz``."""
    body = json.dumps(build(source), ensure_ascii=False, indent=0).encode()
    # mtime=0: the same sources give the same bytes.
    (HERE / "texts.json.gz").write_bytes(gzip.compress(body, 9, mtime=0))
    with np.load(source / "drift" / "azure_llm_2023.npz") as trace:
        np.savez_compressed(HERE / "azure_llm_2023.npz", **{k: trace[k] for k in trace.files})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
