"""The terminal: text is shown as it is, whatever people call their columns and files."""

from rich.console import Console

IN_PIPE = 160
"""Characters of a line where there is no terminal that would say how wide it is."""


def open_console(in_pipe: int | None = None) -> Console:
    """Return a console that takes nothing for markup: ``load [kW]`` stays what it is.

    Args:
        in_pipe: characters of a line where there is no terminal; by default what rich takes.
    """
    terminal = Console(markup=False, emoji=False)
    if in_pipe is None or terminal.is_terminal:
        return terminal
    return Console(markup=False, emoji=False, width=in_pipe)
