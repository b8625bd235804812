"""Switching instrumentations on and off, in whatever order things come."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from importlib import metadata

import pytest

import llmobs
from llmobs.sdk.integrations.base import numbers
from tests.sdk.conftest import Start
from tests.sdk.integrations import stub as shapes
from tests.sdk.integrations.stub import Stub
from tests.sdk.receiver import Receiver


def run(code: str, **variables: str) -> str:
    """Run code in a process where nothing is imported yet."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("first", ["init", "instrument", "openai"])
def test_init_instrument_and_import_come_in_any_order(
    provider: Stub, otlp: Receiver, first: str
) -> None:
    steps = {
        "openai": "import openai",
        "instrument": "llmobs.instrument('openai')",
        "init": f"llmobs.init('shop', endpoint={otlp.url!r})",
    }
    ordered = [steps.pop(first), *steps.values()]
    provider.say(shapes.chat("hello"))
    code = f"""
        client = openai.OpenAI(api_key="none", base_url={provider.url!r})
        client.chat.completions.create(model="m", messages=[{{"role": "user", "content": "Hi"}}])
        assert type(openai.__spec__.loader).__module__ != "llmobs.sdk.integrations.imports"
        llmobs.shutdown()
    """
    run("\n".join(["import llmobs", *ordered, textwrap.dedent(code)]))
    assert [span.name for span in otlp.spans] == ["chat m"]


def test_asking_whether_a_client_is_installed_loses_nothing(provider: Stub, otlp: Receiver) -> None:
    provider.say(shapes.chat("hello"))
    run(
        f"""
        import importlib.util, llmobs
        llmobs.init("shop", endpoint={otlp.url!r}, instrument=["openai"])
        assert importlib.util.find_spec("openai") is not None  # as many libraries ask
        import openai
        client = openai.OpenAI(api_key="none", base_url={provider.url!r})
        client.chat.completions.create(model="m", messages=[{{"role": "user", "content": "Hi"}}])
        llmobs.shutdown()
        """
    )
    assert [span.name for span in otlp.spans] == ["chat m"]


def test_instrumenting_another_client_leaves_what_was_allowed(provider: Stub, start: Start) -> None:
    import openai

    start()
    llmobs.instrument("openai", stream_usage=True)
    llmobs.instrument("anthropic")
    provider.say(shapes.chat_chunks("a", usage=shapes.USAGE))
    with openai.OpenAI(api_key="none", base_url=provider.url) as client:
        list(client.chat.completions.create(model="m", messages=[], stream=True))
    assert provider.requests[0][1]["stream_options"] == {"include_usage": True}


def test_a_child_process_takes_no_leave_to_send_content_from_its_parents(otlp: Receiver) -> None:
    child = f"""
        import llmobs
        llmobs.init("child", endpoint={otlp.url!r})
        llmobs.observe(name="work")(lambda text: text)("the secret")
        llmobs.shutdown()
    """
    run(
        f"""
        import subprocess, sys, llmobs
        llmobs.init("parent", endpoint={otlp.url!r}, capture_content="redacted", instrument="auto")
        subprocess.run([sys.executable, "-c", {textwrap.dedent(child)!r}], check=True)
        """
    )
    assert otlp.span("invoke_workflow work").attributes["llmobs.content"] == "metadata"


def test_instrumenting_imports_no_client() -> None:
    out = run(
        """
        import sys, llmobs
        print(sorted(llmobs.instrument("openai", "anthropic", "litellm")))
        print([name for name in ("openai", "anthropic", "litellm") if name in sys.modules])
        llmobs.uninstrument()
        print([finder for finder in sys.meta_path if "llmobs" in type(finder).__module__])
        """
    )
    assert out.splitlines() == ["['anthropic', 'litellm', 'openai']", "[]", "[]"]


def test_a_client_that_cannot_be_imported_fails_as_without_us() -> None:
    run(
        """
        import sys, pathlib, tempfile
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "anthropic.py").write_text("raise RuntimeError('broken')")
            sys.path.insert(0, folder)
            import llmobs
            llmobs.instrument("anthropic")
            for _ in range(2):
                try:
                    import anthropic
                except RuntimeError as error:
                    assert str(error) == "broken"
                else:
                    raise SystemExit("imported")
        """
    )


@pytest.mark.parametrize("version", ["0.9.1", "1.39.9", "4.0.0", "2026-beta"])
def test_a_version_that_nobody_has_tried_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    from openai._base_client import SyncAPIClient

    from llmobs.sdk import guarded
    from llmobs.sdk.integrations import base

    before = SyncAPIClient.request
    monkeypatch.setattr(base, "version", lambda _: version)
    monkeypatch.setattr(guarded, "_reported_s", {})
    assert llmobs.instrument("openai") == []
    assert llmobs.instrument("openai") == []
    assert SyncAPIClient.request is before
    assert caplog.text.count("client of an unknown version is left alone") == 1


def test_a_client_that_is_built_otherwise_is_left_whole(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from openai import _base_client

    monkeypatch.delattr(_base_client.AsyncAPIClient, "_process_response")
    before = _base_client.SyncAPIClient.request
    assert llmobs.instrument("openai") == []
    assert _base_client.SyncAPIClient.request is before
    assert "unknown shape" in caplog.text


def test_instrumenting_twice_is_instrumenting_once(provider: Stub, start: Start) -> None:
    import openai

    otlp = start(instrument=["openai"])
    llmobs.instrument("openai")
    provider.say(shapes.chat("hello"))
    with openai.OpenAI(api_key="none", base_url=provider.url) as client:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
    llmobs.flush(10)
    assert len(otlp.spans) == 1


def test_our_own_win_over_official_ones_of_the_same_clients() -> None:
    official = {entry.name for entry in metadata.entry_points(group="opentelemetry_instrumentor")}
    started = llmobs.instrument()
    assert {"openai", "anthropic", "litellm"} <= set(started)
    if "openai" in official:
        from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

        assert not OpenAIInstrumentor().is_instrumented_by_opentelemetry


def test_the_first_two_numbers_of_a_version_are_read() -> None:
    assert [numbers(v) for v in ("1.40.3", "2.0b1", "3", "x")] == [(1, 40), (2, 0), (3, 0), (0, 0)]
