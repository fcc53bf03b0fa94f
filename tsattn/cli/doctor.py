"""What this machine can run, and what is missing: the command `tsattn doctor`."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from tsattn import __version__
from tsattn.console import open_console
from tsattn.data.catalog import CATALOG
from tsattn.data.load import cache_dir, find_file, search_folders
from tsattn.errors import KernelBuildError
from tsattn.ops.build import build_all
from tsattn.ops.impl import availability
from tsattn.resources import datasets_dir

Rows = list[tuple[str, str]]
"""One section of the report: what, and what was found."""

PACKAGES = (
    "torch",
    "lightning",
    "jsonargparse",
    "torchmetrics",
    "numpy",
    "pandas",
    "scikit-learn",
    "safetensors",
)
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "neuralforecast": ("neuralforecast",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "ray": ("ray",),
    "bench": ("neuralforecast", "transformers"),
    "plots": ("matplotlib", "plotly", "tensorboard"),
    "polars": ("polars",),
    "triton": ("triton",),
}
"""The modules that each extra of the package brings."""

BF16_FEATURES = ("amx_bf16", "avx512_bf16", "avx_ne_convert", "bf16", "sve_bf16", "sme")
"""Processor features with which bfloat16 arithmetic is done by the hardware, x86 and ARM."""

GIB = 2**30


def doctor(*, build: bool = False) -> int:
    """Print the versions, devices, implementations, extras and data of this machine.

    Args:
        build: build the CPU kernels first, even if that failed before.

    Returns:
        The exit status: 0 when networks can be trained here, 1 when something they cannot do
        without is missing (it is printed last) or the kernels did not build.

    Example:
        >>> from tsattn.cli.doctor import doctor
        >>> status = doctor()  # doctest: +SKIP
    """
    console = open_console()
    built = build_kernels(console) if build else True
    return print_report(console) or int(not built)


def build_kernels(console: Console) -> bool:
    """Build the CPU kernels, print where they lie or why they could not be built."""
    console.print("building the CPU kernels, which takes half a minute or more")
    try:
        library = build_all()
    except KernelBuildError as error:
        console.print(f"problem: {error}", style="red")
        return False
    console.print(f"built: {library}\n")
    return True


def print_report(console: Console) -> int:
    """Print the report of `doctor` on a console, and return its exit status."""
    sections: dict[str, Callable[[], Rows]] = {
        "versions": version_rows,
        "machine": machine_rows,
        "accelerators": accelerator_rows,
        "active attention": implementation_rows,
        "extras": extra_rows,
        "data": data_rows,
    }
    for title, rows in sections.items():
        table = Table(title=title, title_justify="left", show_header=False, box=None)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for label, found in _guarded(rows):
            table.add_row(label, found)
        console.print(table)
        console.print()
    problems = problem_lines()
    for line in problems:
        console.print(f"problem: {line}", style="red")
    if not problems:
        console.print("ready: `tsattn fit` can train here", style="green")
    return 1 if problems else 0


def _guarded(rows: Callable[[], Rows]) -> Rows:
    # A report on a broken installation must reach its end: a section that fails says so.
    try:
        return rows()
    except Exception as error:
        return [("unknown", f"could not be read: {type(error).__name__}: {error}")]


def version_rows() -> Rows:
    """Return the versions of the package, of Python, of the system and of the main libraries."""
    return [
        ("tsattn", f"{__version__} from {Path(__file__).parents[1]}"),
        ("python", f"{platform.python_version()} from {sys.executable}"),
        ("system", platform.platform()),
        *((package, _version_of(package)) for package in PACKAGES),
    ]


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def machine_rows() -> Rows:
    """Return the processor, its cores and vector units, the memory and the compiler."""
    features = cpu_features()
    bf16 = [name for name in BF16_FEATURES if features.get(name)]
    # CXX may be more than a name, for example "ccache g++"
    candidates = (*os.environ.get("CXX", "").split()[:1], "c++", "g++", "clang++", "cl")
    compilers = [path for path in map(shutil.which, candidates) if path]
    return [
        ("processor", f"{processor_name(features)} ({platform.machine() or 'unknown'})"),
        ("cores", f"{core_count(features)}, torch uses {torch.get_num_threads()} threads"),
        ("vector units", torch.backends.cpu.get_cpu_capability()),
        (
            "bfloat16",
            f"in hardware ({', '.join(bf16)})"
            if bf16
            else "no hardware support known: `--trainer.precision bf16-mixed` may be slower here",
        ),
        ("memory", memory_text()),
        (
            "C++ compiler",
            compilers[0]
            if compilers
            else "none found: torch.compile and compiled operations need one",
        ),
    ]


def cpu_features() -> Mapping[str, bool | int | str]:
    """Return what torch knows of the processor; nothing where its build cannot tell."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    return capabilities() if capabilities else {}


def processor_name(features: Mapping[str, bool | int | str]) -> str:
    """Return the processor's name, as good as this system tells it."""
    name = str(features.get("cpu_name", "")).strip()
    if name and name.lower() != "unknown":
        return name
    return platform.processor() or platform.machine() or "unknown"


def core_count(features: Mapping[str, bool | int | str]) -> str:
    """Return the physical cores where they are known, and the logical ones open to this process."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    physical = features.get("num_physical_cores")
    prefix = f"{physical} physical, " if physical else ""
    return f"{prefix}{usable or 'unknown'} usable"


def memory_text() -> str:
    """Return the machine's memory in GiB, where the system tells it the POSIX way."""
    try:
        size_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "unknown on this system"
    return f"{size_bytes / GIB:.1f} GiB"


def accelerator_rows() -> Rows:
    """Return CUDA or ROCm, Apple and Intel devices, or why there is none."""
    rows: Rows = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.cuda.get_device_properties(index)
        memory_gib = device.total_memory / GIB
        rows.append((f"cuda:{index}", f"{device.name}, {memory_gib:.1f} GiB"))
    if not rows:
        built = torch.version.cuda or torch.version.hip
        rows.append(
            (
                "cuda",
                f"none: torch is built for {built}, and no device or driver answers"
                if built
                else f"none: torch {torch.__version__} is built without it",
            )
        )
    if torch.backends.mps.is_available():
        rows.append(("mps", "Apple graphics, `--trainer.accelerator mps`"))
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        rows.append(("xpu", f"{torch.xpu.device_count()} Intel devices"))
    return rows


def implementation_rows() -> Rows:
    """Return every implementation of active attention, and why one cannot run here."""
    return [
        (str(name), f"{'yes' if available else 'no'}: {reason}")
        for name, available, reason in availability()
    ]


def extra_rows() -> Rows:
    """Return the optional parts, and the command that installs a missing one."""
    rows: Rows = []
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        rows.append(
            (
                extra,
                f"{', '.join(missing)} missing: pip install 'tsattn[{extra}]'"
                if missing
                else "installed",
            )
        )
    return rows


def data_rows() -> Rows:
    """Return which datasets of the catalog are here, where they are looked for, and the cache."""
    found = [name for name, info in CATALOG.items() if find_file(info)]
    missing = [name for name in CATALOG if name not in found]
    rows = [("found", ", ".join(found) or "none")]
    if missing:
        example = f"tsattn data fetch {missing[0]}"
        rows.append(("not found", f"{', '.join(missing)}; to download one: {example}"))
    rows += [("looked in", f"{folder} ({kind})") for kind, folder in search_folders()]
    cache = cache_dir()
    return [*rows, ("cache", f"{cache}{'' if cache.is_dir() else ', made when first needed'}")]


def problem_lines() -> list[str]:
    """Return what must be mended before a network can be trained here; mostly nothing."""
    problems: list[str] = []
    try:
        if not any(available for _, available, _ in availability()):
            problems.append("no implementation of active attention can run; the reasons are above")
    except Exception as error:
        problems.append(f"active attention cannot be loaded: {type(error).__name__}: {error}")
    shipped = datasets_dir()
    absent = [info.filename for info in CATALOG.values() if info.embedded and not find_file(info)]
    if absent:
        problems.append(
            f"{', '.join(absent)} should ship in {shipped} and cannot be found; install tsattn anew"
        )
    return problems
