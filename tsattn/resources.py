"""Where the recipes and the embedded datasets lie: in the checkout, or in the installed wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _shipped(folder: str) -> Path:
    checkout = _PACKAGE.parent / folder
    if checkout.is_dir() and (_PACKAGE.parent / "pyproject.toml").is_file():
        return checkout
    return _PACKAGE / "_bundled" / folder


def configs_dir() -> Path:
    """Return the folder of recipes: the checkout's ``configs``, else the wheel's copy."""
    return _shipped("configs")


def datasets_dir() -> Path:
    """Return the folder of embedded data: the checkout's ``datasets``, else the wheel's copy."""
    return _shipped("datasets")
