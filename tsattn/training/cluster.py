"""Joining a Ray cluster, or beginning one on this machine."""

import logging
from typing import Any

from tsattn.errors import ConfigError
from tsattn.interrupts import handlers_kept


def connect(address: str | None, processors: int) -> None:
    """Join the Ray cluster at an address, or begin one here; Ctrl-C and SIGTERM stay ours.

    Args:
        address: of a cluster; None begins one on this machine, beside any that runs there.
        processors: how many a cluster that is begun here may use.

    Raises:
        ConfigError: there is no cluster, or it cannot be begun.
    """
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    try:
        with handlers_kept():
            if address is None:
                # "local": no address would join a cluster that runs here, where there is one
                here = {"address": "local", "include_dashboard": False}
                ray.init(num_cpus=processors, **here, **quiet)
            else:
                ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        where = address or "this machine"
        raise ConfigError(f"no Ray cluster at {where}: {error}; is it running?") from error
