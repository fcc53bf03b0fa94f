"""Runs a page of docs/ from top to bottom: its commands, trainings cut short, and its Python."""

import re
import shlex
from pathlib import Path

from tsattn.cli import main

SHORT = [
    "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1", "--trainer.max_epochs=1",
]  # fmt: skip
LEFT_BY_OTHERS = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "TSATTN_RUN_DIR")
"""Variables that a fit leaves in the environment, and that a page must not find."""


def run_page(file: Path) -> list[str]:
    """Run every block of a page in the current folder and return the subcommands, in order.

    Raises:
        AssertionError: a command failed; with its words.
    """
    scope: dict[str, object] = {}
    typed: list[str] = []
    text = file.read_text(encoding="utf-8")
    for language, block in re.findall(r"```(sh|python)\n(.*?)```", text, flags=re.DOTALL):
        if language == "python":
            exec(compile(block, file.name, "exec"), scope)
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)[1:]
            typed.append(words[0])
            status = main(words + (SHORT if words[0] == "fit" else []))
            assert status == 0, words
    return typed
