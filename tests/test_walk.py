"""One span's walk, through public doors: decorator → OTLP → store → score → monitor → inbox."""

from __future__ import annotations

import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import llmobs
from llmobs.server import Server
from llmobs.settings import Settings
from llmobs.web.client import Api
from tests.listener import Listener

ANSWERS = (
    "You can reset the password in the settings.",
    "The invoice is sent on the first of the month.",
    "Please open the app and choose the account.",
    "Your order will arrive within three days.",
)
QUESTIONS = (
    "How do I reset my password?",
    "When do I get the invoice?",
    "Where do I find my account?",
    "When will my order arrive?",
)
# A mild insult is enough for the scorer, and for a test.
INSULT = "You are a stupid idiot and a worthless piece of shit, shut up, I hate you."


@llmobs.observe(kind="chat", provider="openai", model="gpt-4o-mini")
def ask(messages: list[dict[str, str]], answer: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
    }


@llmobs.observe(kind="workflow", name="desk")
def desk(question: str, answer: str) -> str:
    reply = ask([{"role": "user", "content": question}], answer)
    return str(reply["choices"][0]["message"]["content"])


def talk(n_sessions: int, prefix: str, chance: random.Random, *, toxic_share: float = 0.0) -> None:
    for n in range(n_sessions):
        with llmobs.session(f"{prefix}-{n}", user_id=f"user-{n % 7}", feature="desk"):
            for _ in range(chance.randint(1, 3)):
                which = chance.randrange(4)
                toxic = chance.random() < toxic_share
                desk(QUESTIONS[which], INSULT if toxic else ANSWERS[which])
        time.sleep(0.004)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_decorated_call_is_stored_scored_watched_and_announced(tmp_path: Path) -> None:
    chance = random.Random(7)
    with Listener() as inbox:
        settings = Settings(
            data=tmp_path,
            grpc_port=0,
            http_port=0,
            web_port=0,
            reference_s=5.0,
            min_reference_sessions=100,
            session_idle_s=1.0,
            session_cap_s=5.0,
            segment_max_age_s=0.1,
            channels={"inbox": f"json://127.0.0.1:{inbox.port}"},
        )
        with Server(settings) as server:
            server.wait_ready()
            settings = server.settings
            api = Api(settings.page_url)
            llmobs.init(
                "walk",
                endpoint=f"http://127.0.0.1:{settings.http_port}",
                capture_content="full",
            )
            try:
                deadline = time.monotonic() + 60
                n_rounds = 0
                while time.monotonic() < deadline:
                    talk(100, f"calm-{n_rounds}", chance)
                    n_rounds += 1
                    toxicity = [
                        row
                        for row in api.get("monitors")["monitors"]
                        if row["monitor"] == "output.toxicity"
                    ]
                    if toxicity and toxicity[0]["state"] == "watching":
                        break
                assert toxicity, "no monitor watches the answers"
                assert toxicity[0]["state"] == "watching", toxicity[0]["words"]
                assert api.get("alerts")["alerts"] == [], "an alert without an incident"

                stop = threading.Event()

                def misbehave() -> None:
                    n = 0
                    while not stop.is_set():
                        talk(50, f"toxic-{n}", chance, toxic_share=0.4)
                        n += 1

                incident = threading.Thread(target=misbehave)
                incident.start()
                try:
                    inbox.wait_for(lambda body: "toxicity" in json.dumps(body), timeout_s=60)
                finally:
                    stop.set()
                    incident.join()
                llmobs.flush()

                alert = next(
                    row
                    for row in api.get("alerts")["alerts"]
                    if row["monitor"] == "output.toxicity"
                )
                assert alert["state"] == "firing"
                finding = api.get(f"findings/{alert['finding_id']}")
                assert finding["service"] == "walk"
                assert finding["feature"] == "desk"
                assert finding["log_e"] >= finding["log_threshold"]

                spans = api.get(f"traces/{finding['examples'][0]}")["spans"]
            finally:
                llmobs.shutdown()

    by_name = {span["operation"]: span for span in spans}
    assert set(by_name) == {"invoke_workflow", "chat"}
    chat = by_name["chat"]
    assert chat["parent_id"] == by_name["invoke_workflow"]["span_id"]
    assert chat["session_id"].startswith("toxic-")
    assert chat["output_text"] in (*ANSWERS, INSULT)
    # gpt-4o-mini: 0.15 and 0.60 USD per million tokens
    assert chat["cost_usd"] == pytest.approx(1000 * 0.15e-6 + 100 * 0.60e-6)
    scores = {(score["name"], score["target"]): score for score in chat["scores"]}
    assert ("toxicity", "output") in scores
    assert ("injection", "input") in scores
