"""The networks inside neuralforecast: `NeuralForecast(models=[ActivePatchTST(...)], freq=...)`.

Importing this module imports neuralforecast, which is an extra, and enters the models into its
table of names, so that its files can be loaded again.

Example:
    >>> from neuralforecast import NeuralForecast
    >>> from tsattn.interop.neuralforecast import ActivePatchTST
    >>> model = ActivePatchTST(h=12, input_size=36, value_activation="tanh", max_steps=100)
    >>> forecaster = NeuralForecast([model], freq="MS")
    >>> forecaster.fit(frame)
    >>> forecasts = forecaster.predict()
"""

import re
from importlib.metadata import version

from tsattn.errors import MissingExtraError

_OLDEST = (3, 3)

try:
    import neuralforecast as _neuralforecast
except ImportError as error:
    raise MissingExtraError(
        f"tsattn.interop.neuralforecast needs neuralforecast, which cannot be imported ({error}): "
        "pip install 'tsattn[neuralforecast]'"
    ) from error

_found = version(_neuralforecast.__name__)
if tuple(int(number) for number in re.findall(r"\d+", _found)[:2]) < _OLDEST:
    raise MissingExtraError(
        f"tsattn.interop.neuralforecast needs neuralforecast 3.3 or newer, found {_found}: "
        "pip install 'tsattn[neuralforecast]'"
    )

from tsattn.interop.neuralforecast.auto import AutoActivePatchTST  # noqa: E402
from tsattn.interop.neuralforecast.base import ActiveModel  # noqa: E402
from tsattn.interop.neuralforecast.patchtst import ActivePatchTST  # noqa: E402
from tsattn.interop.neuralforecast.transformer import ActiveTransformer  # noqa: E402

__all__ = ["ActiveModel", "ActivePatchTST", "ActiveTransformer", "AutoActivePatchTST"]
