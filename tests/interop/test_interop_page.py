"""The page about other libraries is run."""

import re
from pathlib import Path

import pytest


@pytest.mark.unchecked
@pytest.mark.parametrize("part", ["neuralforecast", "scikit-learn"])
def test_the_examples_of_the_page_run_in_their_order(
    part: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if part == "neuralforecast":
        pytest.importorskip("neuralforecast")
    page = (root / "docs" / "interop.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {part}\n(.*?)(?=^## |\Z)", page, flags=re.M | re.S)
    blocks = re.findall(r"```python\n(.*?)```", section, flags=re.S)
    assert blocks
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/interop.md", "exec"), scope)
    shape = {"neuralforecast": (7, 8), "scikit-learn": (1, 12)}[part]
    assert scope["forecasts"].shape == shape  # pyright: ignore[reportAttributeAccessIssue]
