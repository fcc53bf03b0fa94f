"""The command ``tsattn``."""

from tsattn.cli.main import main

__all__ = ["main"]
