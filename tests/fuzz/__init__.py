"""Malformed files through ``tsattn forecast`` and ``tsattn backtest``.

``python -m tests.fuzz --inputs 2000 --seed 0`` makes CSV files and checkpoints that are damaged in
ways that files are (and some that only an attacker thinks of), runs both commands on them in this
process, and fails on whatever is no message to the user: an exception that is none of the
library's own, more than the time limit, a number in an output that is none, a file that was
replaced or changed, or code of a checkpoint that was executed. Input ``n`` of a seed is always the
same, so ``--only n`` repeats it.
"""
