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
