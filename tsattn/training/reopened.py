"""A finished run's settings and data, read again from its folder."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tsattn.errors import ConfigError
from tsattn.training.datamodule import ForecastData
from tsattn.training.folder import RunFolder


def settings_of(run: RunFolder) -> dict[str, Any]:
    """Return what a run's ``config.yaml`` holds.

    Raises:
        ConfigError: no run folder, or a file without settings of data and network.
    """
    if not run.config.is_file():
        raise ConfigError(
            f"{run.path} is no run folder: it has no {run.config.name}; give the folder that "
            "tsattn fit wrote, as --run_dir named it"
        )
    try:
        settings = yaml.safe_load(run.config.read_text(encoding="utf-8"))
        _ = settings["data"]["dataset"], settings["model"]["network"], settings["trainer"]
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{run.config} holds no settings of a run: {error!r}") from error
    return settings


def data_of(settings: Mapping[str, Any], root: Path | None = None) -> ForecastData:
    """Return the data of a run's settings.

    Args:
        settings: as `settings_of` returns them.
        root: folder that is searched first for catalog files, in place of the run's own.

    Raises:
        ConfigError: settings that this version does not know.
    """
    arguments = dict(settings["data"])
    chosen = root or arguments.get("root")
    arguments["root"] = None if chosen is None else Path(chosen)
    try:
        return ForecastData(**arguments)
    except TypeError as error:
        unknown = re.sub(r".*__init__\(\) ", "", str(error))
        raise ConfigError(f"a run's config.yaml has unknown settings of data: {unknown}") from error
