"""Marks for torch.compile that are set without importing the compiler."""

from collections.abc import Callable
from typing import TypeVar

_Function = TypeVar("_Function", bound=Callable[..., object])


def constant_when_compiled(function: _Function) -> _Function:
    """Let torch.compile call ``function`` once and take its result for a constant.

    What `torch.compiler.assume_constant_result` does; that imports the compiler, which takes longer
    than torch itself, and most processes never compile.

    Args:
        function: takes and returns no tensor.
    """
    function._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]
    return function
