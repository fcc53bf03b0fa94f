"""The constraints file holds the whole environment."""

import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PLATFORM_PACKAGES = ("nvidia-", "triton", "cuda-")
"""What a build of torch for one platform brings along, and pins itself."""


@pytest.fixture(scope="module")
def project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def pins(root: Path) -> dict[str, Requirement]:
    lines = (root / "constraints.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def requirements_of(project: dict) -> list[Requirement]:
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *(text for extra in extras.values() for text in extra)]
    return [Requirement(text) for text in texts if not text.startswith("tsattn[")]


def closure(roots: list[Requirement]) -> set[str]:
    """Return every package that the roots need here, the roots included."""
    found: set[tuple[str, str]] = set()
    todo = [(canonicalize_name(r.name), extra) for r in roots for extra in ("", *r.extras)]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for text in distribution(name).requires or []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                todo += [(canonicalize_name(needed.name), e) for e in ("", *needed.extras)]
    return {name for name, _ in found}


def test_every_package_of_the_environment_is_pinned(
    project: dict, pins: dict[str, Requirement]
) -> None:
    try:
        needed = closure(requirements_of(project))
    except PackageNotFoundError as missing:
        pytest.skip(f"this environment has not all extras: {missing}")

    unpinned = {name for name in needed - set(pins) if not name.startswith(PLATFORM_PACKAGES)}
    assert unpinned == set()


def test_every_pin_is_one_exact_version(pins: dict[str, Requirement]) -> None:
    for requirement in pins.values():
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        assert Version(specifier.version).local is None, f"{requirement} exists on one index only"
        assert requirement.url is None


def test_the_pins_lie_within_the_ranges_that_the_project_declares(
    project: dict, pins: dict[str, Requirement]
) -> None:
    for requirement in requirements_of(project):
        if requirement.name.startswith(PLATFORM_PACKAGES):
            continue
        (pin,) = pins[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(pin.version), f"{requirement} excludes {pin.version}"


def test_all_extras_are_in_the_extra_named_all(project: dict) -> None:
    extras = project["optional-dependencies"]
    (everything,) = [Requirement(text) for text in extras["all"]]
    assert everything.extras == set(extras) - {"all"}
