from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llmobs.measures.text import groundedness, load_grounding
from llmobs.measures.text.indirect import sentences
from llmobs.measures.text.train.corpora import Corpora

DATA = Path(__file__).parent / "data"
WRITTEN = [
    json.loads(line)
    for line in (DATA / "grounded_written.jsonl").read_text(encoding="utf-8").splitlines()
]
MUSEUM = (
    "The museum was founded by Clara Jensen in 1954. Its collection holds 3,200 paintings, most "
    "of them by Danish artists. Entry is free on the first Sunday of the month."
)


def written(kind: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    rows = [row for row in WRITTEN if row["kind"] == kind]
    return groundedness([row["text"] for row in rows], [row["context"] for row in rows])


def test_answers_in_other_words_pass_and_invented_ones_fail() -> None:
    threshold = load_grounding().threshold
    assert (written("borne_out") > threshold).mean() >= 0.95
    assert (written("invented") <= threshold).mean() >= 0.95


def test_a_text_bears_itself_out_and_no_other_one() -> None:
    texts = list(dict.fromkeys(Corpora(DATA, held_out=True).related("relevance_halueval")))
    own = groundedness(texts, texts)
    assert np.nanmin(own) == 1.0
    assert np.isnan(own).mean() < 0.1
    assert np.nanmean(groundedness(texts, texts[9:] + texts[:9])) < 0.05


def test_sentences_cut_out_of_a_document_are_mostly_not_borne_out_by_the_rest() -> None:
    claims, rests = [], []
    for text in dict.fromkeys(Corpora(DATA, held_out=True).related("relevance_halueval")):
        cuts = sentences(text)
        if 5 <= len(cuts) <= 60:
            start, end = cuts[len(cuts) // 2]
            claims.append(text[start:end])
            rests.append(text[:start] + text[end:])
    assert len(claims) > 30
    assert np.nanmean(groundedness(claims, rests)) < 0.3


@pytest.mark.parametrize(
    ("sentence", "value"),
    [
        ("Clara Jensen founded the museum in 1954.", 1.0),
        ("Clara Jensen founded the museum in 1945.", 0.0),
        ("The museum was founded by Clara Holm in 1954.", 0.0),
        ("The collection holds 3200 paintings.", 1.0),
        ("The collection holds 3,200 paintings by Danish artists [1, 2].", 1.0),
        ("7. The collection holds 3,200 paintings, by Danish artists.", 1.0),
        ("The collection holds seven paintings by Danish artists.", 0.0),
    ],
)
def test_numbers_and_names_must_stand_in_the_document(sentence: str, value: float) -> None:
    assert groundedness([sentence], [MUSEUM]).tolist() == [value]


def test_small_numbers_may_be_spelled() -> None:
    document = "Up to five vacation days are carried over, and requests take 2 weeks of notice."
    answers = ["Up to 5 vacation days are carried over.", "Requests take two weeks of notice."]
    assert groundedness(answers, [document] * 2).tolist() == [1.0, 1.0]


def test_a_spelled_number_is_a_word_of_its_own() -> None:
    document = "The parcel often weighs as much as the pallets of our customers in Hamburg."
    answers = ["The parcel weighs 10 pallets in Hamburg.", "The parcel weighs 8 in Hamburg."]
    assert groundedness(answers, [document] * 2).tolist() == [0.0, 0.0]


def test_where_every_noun_has_a_capital_a_new_noun_is_no_missing_name() -> None:
    document = (
        "Die Rechnung kommt am Anfang des Monats per Post an Ihre Adresse. Der Betrag wird vom "
        "Konto eingezogen, und die Gebühr für den Anschluss steht auf der ersten Seite."
    )
    answer = "Also kommt die Rechnung per Post an Ihre Adresse, am Anfang des Kalendermonats."
    assert groundedness([answer], [document]).tolist() == [1.0]


def test_the_value_is_the_share_of_sentences_and_the_worst_one_is_placed() -> None:
    invented = "Its roof garden was planted with oaks."
    answer = f"Clara Jensen founded the museum in 1954. {invented} Entry is free on Sunday."
    judged = load_grounding().judge([answer], [MUSEUM])
    assert judged.values.tolist() == [pytest.approx(2 / 3)]
    assert judged.n_sentences.tolist() == [3]
    start, end = judged.places[0]
    assert answer[start:end] == invented


@pytest.mark.parametrize(
    "aside",
    [
        "Let me know if you would like the address of the car park!",
        "Would you like me to reserve a guided tour on Saturday afternoon?",
        "I couldn't find the ticket prices in the documents.",
        "- I’m sorry that the café is missing from the documents.",
    ],
)
def test_questions_offers_and_what_is_said_of_oneself_are_no_claims(aside: str) -> None:
    judged = load_grounding().judge(
        [f"Clara Jensen founded the museum. {aside}", aside], [MUSEUM] * 2
    )
    assert judged.n_sentences.tolist() == [1, 0]
    assert judged.values[0] == 1.0


def test_answers_in_json_have_no_sentences() -> None:
    answers = ['{"founder": "Clara Jensen", "year": 1954}', '[\n {"founder": "Peter Holm"}]']
    assert np.isnan(groundedness(answers, [MUSEUM] * 2)).all()


def test_nothing_is_said_without_a_document_or_a_claim() -> None:
    answers = ["Clara Jensen founded the museum.", "Yes, it is!", "", "Clara Jensen founded it."]
    judged = load_grounding().judge(answers, ["", MUSEUM, MUSEUM, " \n"])
    assert np.isnan(judged.values).all()
    assert judged.places == [(0, 0)] * 4
    assert groundedness([], []).shape == (0,)


def test_a_pair_has_the_same_value_in_any_company() -> None:
    answers, documents = [r["text"] for r in WRITTEN], [r["context"] for r in WRITTEN]
    together = groundedness(answers, documents)
    alone = [groundedness([a], [d])[0] for a, d in zip(answers[:12], documents[:12], strict=True)]
    assert together[:12].tolist() == alone


def test_texts_of_thousands_of_sentences_are_judged_by_their_ends() -> None:
    text = "\n".join(f"Item {i} weighs {i + 7} grams and ships from Hamburg." for i in range(3000))
    assert groundedness([text], [text]).tolist() == [1.0]
