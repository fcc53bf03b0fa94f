"""What the library raises when its user, not its author, can mend the matter.

Every message says what was given, what was expected and what to do next. The command prints these
without a traceback; everything else is a bug and keeps its traceback.
"""


class TsattnError(Exception):
    """Base of every error that a user can mend."""


class DataError(TsattnError, ValueError):
    """A file or a frame that cannot be used as it is."""


class DataAbsentError(DataError):
    """A dataset that is known, but whose file is not on this machine."""


class ConfigError(TsattnError, ValueError):
    """A setting, or a combination of settings, that cannot work."""


class CheckpointError(TsattnError, RuntimeError):
    """A checkpoint that cannot be read, or that belongs to another network or to other data."""


class CheckpointNotSavedError(CheckpointError):
    """A checkpoint that could not be written; the one before it is whole."""


class NonFiniteLossError(TsattnError, ArithmeticError):
    """Training met a loss that is NaN or infinite."""


class ExistsError(TsattnError, FileExistsError):
    """Something would be overwritten, and nobody asked for that."""


class MissingExtraError(TsattnError, ImportError):
    """An optional package is needed and not installed."""


class StorageError(TsattnError, OSError):
    """Where a study is kept cannot be reached, or is locked."""


class KernelBuildError(TsattnError, RuntimeError):
    """The compiled kernels are not there and cannot be built."""
