"""Tests of the compiled kernels are skipped where these cannot be built."""

import pytest

from tsattn.ops import build


@pytest.fixture(autouse=True)
def _skip_without_kernels(request: pytest.FixtureRequest) -> None:
    given = getattr(request.node, "callspec", None)
    named = given is not None and any(
        isinstance(value, str) and value == "cpu" for value in given.params.values()
    )
    if (named or request.node.get_closest_marker("needs_kernels")) and not build.is_ready():
        pytest.skip(build.status().reason)
