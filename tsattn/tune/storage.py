"""Where a study is kept: a database or a journal file, opened, found again, and never mixed up."""

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from tsattn.errors import ConfigError, StorageError, TsattnError
from tsattn.tune.identity import Identity, known_data, note_data

FORMAT = 1
_MARK = "tsattn"
_JOURNAL = "journal:///"
_SIGNS_OF_DAMAGE = ("file is not a database", "malformed")


def open_storage(url: str) -> BaseStorage:
    """Open a database (``sqlite:///study.db``, any of SQLAlchemy's) or ``journal:///study.log``.

    Raises:
        StorageError: it cannot be reached, is locked, or holds something else than studies.
        ConfigError: the address is none.
    """
    with reaching(url):
        path = file_of(url)
        if path and url.startswith(_JOURNAL):
            return _open_journal(url, path)
        try:
            return RDBStorage(url)
        except RuntimeError as error:  # tables of another Optuna
            raise StorageError(_damaged(url, str(error))) from error


def file_of(url: str) -> Path | None:
    """Return the file that a storage is, or None where it is a server.

    Raises:
        ConfigError: it is no address.
    """
    if url.startswith(_JOURNAL):
        # an absolute path: the lock of a journal is a link to the file
        return Path(url.removeprefix(_JOURNAL)).expanduser().resolve()
    address = _address(url)
    is_file = address.get_backend_name() == "sqlite" and address.database not in (None, ":memory:")
    return Path(str(address.database)).resolve() if is_file else None


def _open_journal(url: str, path: Path) -> BaseStorage:
    """Open a journal, and leave a file alone that is none: Optuna would write behind it."""
    if path.is_file():
        with path.open("rb") as file:
            first = file.readline(1000)
        if first and b'"op_code"' not in first:
            begin = first[:40].decode(errors="replace")
            raise StorageError(_damaged(url, f"no journal begins with {begin!r}"))
    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(_damaged(url, f"{type(error).__name__}: {error}")) from error


@contextlib.contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turn what goes wrong with a storage into words.

    Raises:
        StorageError: whatever the database or the file system said.
    """
    try:
        yield
    except TsattnError:
        raise
    except NoSuchModuleError as error:
        raise StorageError(
            f"unknown kind of storage {_address(url).get_backend_name()!r} in {shown(url)}; "
            "expected sqlite:///, journal:///, postgresql:// or mysql://"
        ) from error
    except json.JSONDecodeError as error:
        raise StorageError(_damaged(url, f"{error}")) from error
    except (SQLAlchemyError, StorageInternalError, OSError) as error:
        raise StorageError(_message(url, error)) from error
    except ImportError as error:
        raise StorageError(
            f"the storage {shown(url)} needs a database driver that is not installed: "
            f"{error.__cause__ or error}; install it, or use sqlite:/// or journal:///"
        ) from error


def shown(url: str) -> str:
    """Return an address without its password.

    Raises:
        ConfigError: it is no address.
    """
    if url.startswith(_JOURNAL):
        return url
    return _address(url).render_as_string(hide_password=True)


def _address(url: str) -> URL:
    try:
        return make_url(url)
    except ArgumentError as error:
        raise ConfigError(
            f"--storage {url!r} is no address; expected for example sqlite:///study.db, "
            "journal:///study.log or postgresql://user@host/database"
        ) from error


def _message(url: str, error: BaseException) -> str:
    reason = str(error.__cause__ or error).splitlines()[0]
    if any(sign in reason for sign in _SIGNS_OF_DAMAGE):
        return _damaged(url, reason)
    kept = "what is in it is kept, and the same command goes on with it"
    if "locked" in reason:
        return (
            f"the storage {shown(url)} is locked by another process: {reason}; {kept} once that "
            "one is done (sqlite waits 5 seconds; ?timeout=60 at the end of the address waits "
            "longer, and journal:/// or a database server serve many)"
        )
    return f"the storage {shown(url)} cannot be used: {reason}; {kept} once it can be reached"


def _damaged(url: str, reason: str) -> str:
    return (
        f"the storage {shown(url)} cannot be used: it was reached, but holds no studies or is "
        f"damaged: {reason}; it was left as it is: put back a copy of it, or give another --storage"
    )


def is_begun(url: str, name: str) -> bool:
    """Whether a storage has a study of this name.

    Raises:
        StorageError: the storage cannot be reached, or is locked.
    """
    storage = open_storage(url)
    with reaching(url), quiet():
        return name in optuna.get_all_study_names(storage)


def has_trials(url: str, name: str) -> bool:
    """Whether a storage has a study of this name with a trial in it; a file is not begun for that.

    Raises:
        StorageError: the storage cannot be reached, or is locked.
    """
    file = file_of(url)
    if file and not file.exists():
        return False
    storage = open_storage(url)
    with reaching(url), quiet():
        found = optuna.get_all_study_summaries(storage, include_best_trial=False)
        return any(study.study_name == name and study.n_trials for study in found)


def open_study(url: str, name: str, identity: Identity, *, pruner: BasePruner) -> optuna.Study:
    """Open a study by its name, or begin it.

    Args:
        url: the storage.
        name: of the study.
        identity: what it is begun with, or has to have been begun with.
        pruner: stops trials early.

    Raises:
        ConfigError: a study of that name has another space, other data or another recipe, or is of
            another program; it is left as it is.
        StorageError: the storage cannot be reached, or is locked.
    """
    storage = open_storage(url)
    with reaching(url), quiet():
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            pruner=pruner,
            direction="minimize",
            load_if_exists=True,
        )
        begun = study.user_attrs.get(_MARK)
        if begun is None and study.get_trials(deepcopy=False):
            raise ConfigError(
                f"the study {name!r} in {shown(url)} was not begun by tsattn tune; choose another "
                "--study"
            )
        if begun is None:
            facts = {"format": FORMAT, "space": identity.space, "recipe": identity.recipe}
            study.set_user_attr(_MARK, facts)
        else:
            _require_known_format(name, begun["format"])
            then = Identity(begun["space"], begun["recipe"], known_data(study))
            identity.require_same(then, name)
        note_data(study, identity.data)
    return study


def _require_known_format(name: str, given: int) -> None:
    if given > FORMAT:
        raise ConfigError(
            f"the study {name!r} has format {given}, this version knows {FORMAT}; upgrade tsattn"
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out what Optuna says about itself."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
