"""The wheel, built from the source archive and installed beside nothing but its dependencies."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tsattn.resources import configs_dir, datasets_dir

EMBEDDED = {"README.md", "ETTh1.csv", "national_illness.csv"}
BUNDLED = "tsattn/_bundled"


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        text=True,
        capture_output=True,
        timeout=240,
    )


def shipped_files(folder: Path) -> set[str]:
    """Return the files below a folder that a wheel should carry."""
    ignored = {"__pycache__", ".so"}
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not ignored & {*path.parts, path.suffix}
    }


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build as a release is built: the source archive first, the wheel from that."""
    source = tmp_path_factory.mktemp("source")
    for name in ("tsattn", "configs"):
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(root / name, source / name, ignore=ignored)
    for path in (*root.iterdir(), *(root / "datasets" / name for name in EMBEDDED)):
        if path.is_file():
            copy = source / path.relative_to(root)
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(path, copy)
    (source / "datasets" / "traffic.csv").write_text("a download that git ignores\n")

    out = tmp_path_factory.mktemp("dist")
    result = run(
        sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source, cwd=source
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Install the wheel into an environment that borrows its dependencies from this one.

    Returns:
        The path of a program of that environment, by its name.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    variables = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", variables))
    # A plain line extends the path and does not read the .pth files there, so that an editable
    # install of this project stays out of sight.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    scripts = Path(sysconfig.get_path("scripts", "venv", variables))
    suffix = ".exe" if os.name == "nt" else ""
    result = run(
        sys.executable,
        *("-m", "pip", "--python", scripts / f"python{suffix}"),
        *("install", "--no-deps", "--no-index", wheel),
        cwd=folder,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return lambda program: scripts / f"{program}{suffix}"


def test_the_wheel_carries_the_embedded_datasets_and_no_download(
    contents: dict[str, bytes], root: Path
) -> None:
    prefix = f"{BUNDLED}/datasets/"
    carried = {name.removeprefix(prefix) for name in contents if name.startswith(prefix)}
    assert carried == EMBEDDED
    for name in EMBEDDED:
        assert contents[prefix + name] == (root / "datasets" / name).read_bytes()


def test_the_wheel_carries_every_recipe(contents: dict[str, bytes], root: Path) -> None:
    prefix = f"{BUNDLED}/configs/"
    carried = {name.removeprefix(prefix) for name in contents if name.startswith(prefix)}
    assert carried == shipped_files(root / "configs")
    assert "patchtst/etth1.yaml" in carried


def test_the_wheel_carries_the_whole_package_and_nothing_beside_it(
    contents: dict[str, bytes], root: Path
) -> None:
    carried = {name for name in contents if not name.startswith(f"{BUNDLED}/")}
    package = {name for name in carried if name.startswith("tsattn/")}
    assert package == {f"tsattn/{name}" for name in shipped_files(root / "tsattn")}
    assert all(name.split("/")[0].endswith(".dist-info") for name in carried - package)


def test_an_installed_wheel_finds_its_recipes_and_datasets_from_an_empty_folder(
    installed: Callable[[str], Path], tmp_path: Path
) -> None:
    code = (
        "import tsattn.resources as r\n"
        "for folder in (r.configs_dir() / 'patchtst', r.datasets_dir()):\n"
        "    print(folder, *sorted(path.name for path in folder.iterdir()), sep='|')\n"
    )
    result = run(installed("python"), "-c", code, cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    recipes, datasets = (line.split("|") for line in result.stdout.splitlines())
    environment = installed("python").parents[1]
    assert Path(recipes[0]).is_relative_to(environment)
    assert Path(datasets[0]).is_relative_to(environment)
    assert "etth1.yaml" in recipes
    assert set(datasets[1:]) == EMBEDDED


def test_the_command_of_an_installed_wheel_finds_the_embedded_datasets_from_an_empty_folder(
    installed: Callable[[str], Path], tmp_path: Path
) -> None:
    result = run(installed("tsattn"), "data", "list", cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    assert "ETTh1" in result.stdout
    assert "illness" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_editable_install_uses_the_folders_of_its_checkout(root: Path) -> None:
    assert configs_dir() == root / "configs"
    assert datasets_dir() == root / "datasets"
