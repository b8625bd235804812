"""The command line: every command parses, calls one library function and prints."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line; say what to install where the server's packages are missing."""
    try:
        from llmobs.cli.commands import cli
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("llmobs"):
            raise
        raise SystemExit(
            f"llmobs: the command line needs the server's packages ({error.name} is missing): "
            "pip install 'llmobs[server]'"
        ) from error
    cli()
