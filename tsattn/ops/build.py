"""Compiles the CPU kernels, once per machine, torch version and state of the sources.

The library lands in ``$TSATTN_KERNELS``, else in ``$TSATTN_CACHE/kernels``, else in
``tsattn/kernels`` of the user's cache directory. A build happens in a directory of its own under a
file lock and is moved into place only after it has been loaded, so that one that fails, is
interrupted or runs twice never leaves a broken library behind. ``TSATTN_BUILD=0`` forbids building.
"""

# Torch's extension functions carry no types.
# pyright: reportUnknownMemberType=false

import hashlib
import logging
import os
import platform
import shutil
import sys
import tempfile
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tsattn.errors import KernelBuildError
from tsattn.ops.compiling import constant_when_compiled

_logger = logging.getLogger(__name__)  # what it warns of is shown where nobody configured logging
_ROOT = Path(__file__).parent
_SOURCES = (
    "attention/attention_autograd.cpp",
    "cpu/autograd.cpp",
    "cpu/lasting.cpp",
    "attention/attention_bindings.cpp",
    "attention/self_attention_bindings.cpp",
    "attention/fused_cpu.cpp",
    "attention/fused_cpu_backward.cpp",
    "dropout/dropout_bindings.cpp",
    "dropout/dropout_cpu.cpp",
    "encoder/encoder_cpu.cpp",
    "encoder/encoder_bindings.cpp",
    "experts/experts_cpu.cpp",
    "experts/narrow_experts_cpu.cpp",
    "experts/experts_bindings.cpp",
    "feedforward/feedforward_cpu.cpp",
    "feedforward/feedforward_bindings.cpp",
    "linear/column_sums.cpp",
    "linear/dense.cpp",
    "linear/linear_cpu.cpp",
    "linear/narrow.cpp",
    "low_rank/low_rank_cpu.cpp",
    "norm/batch_norm_cpu.cpp",
    "norm/batch_norm_bindings.cpp",
    "norm/layer_norm_cpu.cpp",
    "norm/layer_norm_bindings.cpp",
    "routing/routing_cpu.cpp",
)
_CFLAGS = ("-O3", "-std=c++20", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-w")
_ISA = {
    "AVX512": (
        "-mavx512f",
        "-mavx512bw",
        "-mavx512dq",
        "-mavx512vl",
        "-mavx2",
        "-mfma",
        "-mf16c",
        "-mbmi2",
    ),
    "AVX2": ("-mavx2", "-mfma", "-mf16c"),
}
_BFLOAT16 = "-mavx512bf16"  # products of bfloat16, which not every AVX-512 processor has


class Status(NamedTuple):
    """Whether the kernels can be called without a build, and what is to be known about it."""

    ready: bool
    reason: str


class _State:
    loaded = False
    failure = ""


_withheld = ContextVar("withheld", default=False)  # in this thread, or this task


def status() -> Status:
    """Say whether the kernels are built; never builds."""
    if _State.loaded or _library().exists():
        return Status(True, f"compiled C++ for {_capability()} ({_library()})")
    if obstacle := _obstacle():
        return Status(False, obstacle)
    if failure := _known_failure():
        return Status(False, f"the last build failed: {failure}; `tsattn doctor --build` retries")
    return Status(False, "not built yet; the first use or `tsattn doctor --build` builds it")


def ensure() -> None:
    """Load the kernels; build them first where that is needed.

    Raises:
        KernelBuildError: there is no compiler, or the build failed, now or before.
    """
    if _State.loaded:
        return
    if not _library().exists():
        if obstacle := _obstacle():
            raise KernelBuildError(f"the CPU kernels cannot be built: {obstacle}")
        if failure := _known_failure():
            raise KernelBuildError(
                f"the CPU kernels were not built: {failure}\n`tsattn doctor --build` tries again"
            )
    try:
        _load_or_build()
    except OSError as error:
        raise KernelBuildError(
            f"the CPU kernels cannot be kept in {_library().parent}: {error}; "
            "set TSATTN_KERNELS to a folder that can be written"
        ) from error


@constant_when_compiled
def is_ready() -> bool:
    """Load the kernels, building them at most once per machine; False where that is impossible.

    What ``impl="auto"`` asks. It never raises: a build that fails is reported as one warning, and
    again only after `build_all`.
    """
    if _withheld.get():
        return False
    if _State.loaded:
        return True
    if not _library().exists() and (_obstacle() or _known_failure()):
        return False
    try:
        ensure()
    except KernelBuildError as error:
        _State.failure = _State.failure or str(error)
        warnings.warn(
            f"the CPU kernels are not available, slower ones are used: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def is_withheld() -> bool:
    """Say whether `plain_torch` keeps the kernels out here."""
    return _withheld.get()


@contextmanager
def plain_torch(withhold: bool = True) -> Generator[None, None, None]:
    """Compute without the compiled CPU kernels, in this thread, until the block ends.

    For what they cannot do: derivatives of derivatives, ``torch.func``, tracing. Attention then
    takes torch's own operation; ``impl="reference"`` takes single ones that have all derivatives.
    A function that is compiled keeps what it was compiled with.

    Args:
        withhold: False brings the kernels back within such a block.

    Example:
        >>> import torch, tsattn.ops
        >>> x, weight = (torch.randn(4, 4, requires_grad=True) for _ in range(2))
        >>> with tsattn.ops.plain_torch():
        ...     y = tsattn.ops.linear(x, weight, torch.zeros(4))
    """
    token = _withheld.set(withhold)
    try:
        yield
    finally:
        _withheld.reset(token)


def build_all() -> Path:
    """Build the kernels now, even if that failed before, and return the library's path.

    Raises:
        KernelBuildError: there is no compiler, or the build failed.
    """
    _State.failure = ""
    _failure_note().unlink(missing_ok=True)
    ensure()
    return _library()


def _load_or_build() -> None:
    library = _library()
    if library.exists() and _load(library):  # also where nothing can be written
        return
    library.parent.mkdir(parents=True, exist_ok=True)
    with _locked(library.with_suffix(".lock")):
        if library.exists() and _load(library):
            return
        library.unlink(missing_ok=True)
        for stale in library.parent.glob(f"{library.stem}.build-*"):
            shutil.rmtree(stale, ignore_errors=True)
        _build(library)


def _load(library: Path) -> bool:
    try:
        torch.ops.load_library(library)
    except OSError:
        return False
    _State.loaded = True
    return True


def _build(library: Path) -> None:
    if obstacle := _obstacle():
        raise KernelBuildError(f"the CPU kernels cannot be built: {obstacle}")
    _logger.warning("building the CPU kernels for this machine, once; this takes a minute or more")
    here = Path(tempfile.mkdtemp(prefix=f"{library.stem}.build-", dir=library.parent))
    try:
        try:
            _compile(here)
        except (RuntimeError, OSError) as error:
            if getattr(error, "errno", None) is not None:  # of the disk, and not of the library
                raise
            _State.failure = _last_words(str(error))
            _failure_note().write_text(_State.failure, encoding="utf-8")
            raise KernelBuildError(f"the CPU kernels did not build:\n{error}") from error
        next(here.glob("*.so")).replace(library)
        _State.loaded = True
    finally:
        shutil.rmtree(here, ignore_errors=True)


def _compile(directory: Path) -> None:
    from torch.utils import cpp_extension

    capability = _capability()
    defines = [f"-DCPU_CAPABILITY={capability}", f"-DCPU_CAPABILITY_{capability}"]
    path = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join((path, str(Path(sys.executable).parent)))  # ninja's place
    try:
        cpp_extension.load(
            _library().stem,
            [str(_ROOT / source) for source in _SOURCES],
            extra_cflags=[*_CFLAGS, *_instructions(), *defines],
            extra_ldflags=["-fopenmp"],
            build_directory=str(directory),
            is_python_module=False,
        )
    finally:
        os.environ["PATH"] = path


def _capability() -> str:
    found = torch.backends.cpu.get_cpu_capability()
    return found if found in _ISA else "DEFAULT"


def _instructions() -> tuple[str, ...]:
    """Return the compiler's flags for the instructions of this processor."""
    usual = _ISA.get(_capability(), ())
    found: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return (*usual, _BFLOAT16) if usual == _ISA["AVX512"] and found.get("avx512_bf16") else usual


def _obstacle() -> str:
    """Why nothing can be built here, or nothing."""
    if os.environ.get("TSATTN_BUILD", "1") == "0":
        return "building is switched off (TSATTN_BUILD=0)"
    if sys.platform == "win32":
        return "the kernels are not built on Windows"
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler.split()[0]) is None:
        return f"no C++ compiler ({compiler}); install g++ 11 or later (apt install g++)"
    beside = str(Path(sys.executable).parent)
    if shutil.which("ninja") is None and shutil.which("ninja", path=beside) is None:
        return "no ninja; pip install ninja"
    return ""


@cache
def _library() -> Path:
    digest = hashlib.sha256()
    for file in sorted(f for f in _ROOT.rglob("*") if f.suffix in (".h", ".cpp")):
        digest.update(f"{file.relative_to(_ROOT)}\n".encode())
        digest.update(file.read_bytes())
    machine = (platform.machine(), platform.libc_ver())
    what = (torch.__version__, _capability(), _instructions(), machine, _CFLAGS)
    digest.update(repr(what).encode())
    return _directory() / f"tsattn_{digest.hexdigest()[:20]}.so"


def _directory() -> Path:
    if chosen := os.environ.get("TSATTN_KERNELS"):
        return Path(chosen).expanduser()
    return _cache_directory() / "kernels"


def _cache_directory() -> Path:
    if chosen := os.environ.get("TSATTN_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tsattn"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", str(Path.home() / "AppData" / "Local"))
        return Path(local) / "tsattn" / "tsattn" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tsattn"


def _failure_note() -> Path:
    return _library().with_suffix(".failed")


def _known_failure() -> str:
    if _State.failure:
        return _State.failure
    try:
        return _failure_note().read_text(encoding="utf-8")
    except OSError:
        return ""


def _last_words(message: str) -> str:
    """The first compiler error of a build's output, for a one-line report."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() and not line.startswith("Error b")]
    return (errors or lines or ["unknown error"])[0][:300]


@contextmanager
def _locked(path: Path) -> Generator[None, None, None]:
    """Hold an exclusive lock; the system lets go of it when the process ends, however it ends."""
    import fcntl

    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
