"""Runs compared on the same windows: `tsattn compare`."""
