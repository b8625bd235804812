"""Compose files, resolved by the real Compose (no engine runs)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.dashboards.outside import outside

__all__ = ["resolve", "services_of"]


def resolve(*files: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Have Compose merge files, with these variables and no others but PATH and HOME."""
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}
    named = [argument for file in files for argument in ("-f", str(file))]
    command = [outside("docker-compose"), "--env-file", os.devnull, *named, "config"]
    return subprocess.run(
        [*command, "--format", "json"], capture_output=True, text=True, env=env, check=False
    )


def services_of(*files: Path, **variables: str) -> dict[str, Any]:
    """Return the services of files that Compose takes without a warning, by name."""
    resolved = resolve(*files, **variables)
    assert resolved.returncode == 0, resolved.stderr
    assert "level=warning" not in resolved.stderr
    found: dict[str, Any] = json.loads(resolved.stdout)["services"]
    return found
