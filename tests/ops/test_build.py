"""Building the kernels, with one tiny source in their place: every build here takes a second."""

import errno
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tsattn.errors import KernelBuildError
from tsattn.ops import build

TINY = 'extern "C" int tsattn_answer() { return 42; }\n'
CALLER = """
import sys
from pathlib import Path
from tsattn.ops import build
build._ROOT, build._SOURCES = Path(sys.argv[1]), ("tiny.cpp",)
build.ensure()
print(build.status().reason)
"""

needs_compiler = pytest.mark.skipif(
    bool(build._obstacle()), reason=build._obstacle() or "there is a compiler"
)


@pytest.fixture(autouse=True)
def _building_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TSATTN_BUILD", raising=False)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache and sources of the test's own, in this process and in those it starts."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "tiny.cpp").write_text(TINY)
    monkeypatch.setenv("TSATTN_KERNELS", str(tmp_path / "kernels"))
    monkeypatch.delenv("TSATTN_BUILD", raising=False)
    monkeypatch.setattr(build, "_ROOT", folder)
    monkeypatch.setattr(build, "_SOURCES", ("tiny.cpp",))
    monkeypatch.setattr(build._State, "loaded", False)
    monkeypatch.setattr(build._State, "failure", "")
    build._library.cache_clear()
    yield folder
    build._library.cache_clear()


def left_in(folder: Path) -> set[str]:
    """Return the kinds of files there, locks aside."""
    return {file.suffix for file in folder.iterdir()} - {".lock"}


@needs_compiler
def test_a_build_is_loaded_and_kept(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not build.status().ready
    assert "not built yet" in build.status().reason
    library = build.build_all()
    assert library.is_file()
    assert left_in(library.parent) == {".so"}
    assert build.status().ready
    monkeypatch.setattr(build._State, "loaded", False)
    monkeypatch.setenv("CXX", "/nowhere/c++")  # it must not be needed again
    assert build.is_ready()


@needs_compiler
def test_changed_sources_are_another_library(sources: Path) -> None:
    before = build._library()
    (sources / "new.h").write_text("// nothing\n")
    build._library.cache_clear()
    assert build._library() != before


@needs_compiler
def test_a_failed_build_leaves_nothing_and_is_not_tried_again(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sources / "tiny.cpp").write_text("int broken( { }\n")
    with pytest.raises(KernelBuildError, match=r"tiny\.cpp.*error"):
        build.ensure()
    assert left_in(build._library().parent) == {".failed"}
    monkeypatch.setattr(build, "_compile", lambda _: pytest.fail("it was tried again"))
    monkeypatch.setattr(build._State, "failure", "")  # as a new process would find it
    assert not build.is_ready()
    assert "the last build failed" in build.status().reason
    assert "error" in build.status().reason
    with pytest.raises(KernelBuildError, match="doctor --build"):
        build.ensure()


@needs_compiler
def test_building_on_request_forgets_a_failure(sources: Path) -> None:
    build._directory().mkdir(parents=True)
    build._failure_note().write_text("out of memory")
    assert not build.is_ready()
    assert build.build_all().is_file()
    assert left_in(build._directory()) == {".so"}


@needs_compiler
def test_a_failure_met_by_auto_is_one_warning(sources: Path) -> None:
    (sources / "tiny.cpp").write_text("#error not for this machine\n")
    with pytest.warns(RuntimeWarning, match="slower ones are used"):
        assert not build.is_ready()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not build.is_ready()


@needs_compiler
def test_a_broken_library_is_built_again(sources: Path) -> None:
    library = build._library()
    library.parent.mkdir(parents=True)
    library.write_bytes(b"half a library")
    assert build.is_ready()
    assert library.stat().st_size > 1000


@needs_compiler
def test_a_library_in_a_folder_that_cannot_be_written_is_used(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build.build_all()

    def read_only(_: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(build, "_locked", read_only)
    monkeypatch.setattr(build._State, "loaded", False)
    assert build.is_ready()


def test_a_library_that_cannot_be_loaded_is_a_failed_build_and_a_full_disk_is_none(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_obstacle", lambda: "")
    causes = iter([OSError(errno.ENOSPC, "No space left"), OSError("GLIBCXX_3.4.32 not found")])

    def fail(_: Path) -> None:
        raise next(causes)

    monkeypatch.setattr(build, "_compile", fail)
    with pytest.raises(KernelBuildError, match=r"cannot be kept in .*No space left"):
        build.ensure()
    assert not build._failure_note().exists()
    with pytest.raises(KernelBuildError, match=r"did not build:\nGLIBCXX"):
        build.ensure()
    with pytest.raises(KernelBuildError, match="doctor --build"):
        build.ensure()  # and is not tried again


def test_plain_torch_is_a_matter_of_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build._State, "loaded", True)
    with build.plain_torch(), ThreadPoolExecutor(1) as others:
        assert not build.is_ready()
        assert others.submit(build.is_ready).result()
    assert build.is_ready()


@needs_compiler
def test_a_folder_that_cannot_be_written_is_named(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TSATTN_KERNELS", str(tmp_path / "file" / "kernels"))
    build._library.cache_clear()
    with pytest.raises(KernelBuildError, match="set TSATTN_KERNELS to a folder"):
        build.ensure()
    with pytest.warns(RuntimeWarning, match="set TSATTN_KERNELS"):
        assert not build.is_ready()


@needs_compiler
def test_a_killed_build_is_no_obstacle(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "started"
    slow = compiler(tmp_path / "slow", f"touch {started}; sleep 60")
    killed = start(sources, CXX=slow)
    deadline = time.monotonic() + 60
    while not started.exists():
        assert killed.poll() is None, "the build ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    directory = build._directory()
    assert any(".build-" in file.name for file in directory.iterdir())
    assert build.is_ready()
    assert left_in(directory) == {".so"}


@needs_compiler
def test_two_processes_build_once(sources: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    counting = compiler(
        tmp_path / "counting", f'case "$*" in *"-c "*) echo compiled >> {log};; esac'
    )
    processes = [start(sources, CXX=counting) for _ in range(2)]
    for process in processes:
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
        assert "compiled C++ for" in said
    assert log.read_text().count("compiled") == 1
    assert left_in(build._directory()) == {".so"}


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"CXX": "/nowhere/c++"}, "no C++ compiler (/nowhere/c++); install g++"),
        ({"TSATTN_BUILD": "0"}, "building is switched off (TSATTN_BUILD=0)"),
        ({"CXX": sys.executable, "PATH": "/nowhere"}, "no ninja; pip install ninja"),
    ],
    ids=["no compiler", "forbidden", "no ninja"],
)
def test_where_nothing_can_be_built_the_reason_is_told(
    variables: dict[str, str], reason: str, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert not build.is_ready()
    assert build.status() == (False, build.status().reason)
    assert reason in build.status().reason
    with pytest.raises(KernelBuildError) as error:
        build.ensure()
    assert reason in str(error.value)
    assert not build._directory().exists()


def test_a_fresh_process_without_a_compiler_trains_and_says_why_cpu_is_missing(
    tmp_path: Path,
) -> None:
    code = """
import warnings; warnings.simplefilter("error")
import torch
from tsattn.ops import active_attention, availability, dropout, gelu_dropout
q = torch.randn(2, 3, 42, 4, requires_grad=True)
hidden = gelu_dropout(active_attention(q, q, q, activation="tanh", dropout_p=0.1), 0.1)
dropout(hidden, 0.1).sum().backward()
assert q.grad.isfinite().all()
print({str(a.name): a.reason for a in availability() if not a.available})
try:
    active_attention(q, q, q, impl="cpu")
except RuntimeError as error:
    print(type(error).__name__, error)
"""
    environment = os.environ | {"CXX": "/nowhere/c++", "TSATTN_KERNELS": str(tmp_path)}
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert said.returncode == 0, said.stderr
    assert "{'cpu': 'no C++ compiler (/nowhere/c++); install g++" in said.stdout
    assert "KernelBuildError the CPU kernels cannot be built: no C++ compiler" in said.stdout


def test_a_fresh_process_with_neither_triton_nor_a_compiler_trains_whole_networks(
    tmp_path: Path,
) -> None:
    code = """
import sys
sys.modules["triton"] = None  # importing it fails
import torch
from tsattn.models import EncoderDecoderTransformer, PatchTST
torch.manual_seed(0)
small = {"d_model": 16, "num_heads": 4, "d_ff": 32, "value_activation": "tanh"}
for build in (PatchTST, EncoderDecoderTransformer):
    x, marks, future = torch.randn(4, 48, 3), torch.randn(4, 48, 4), torch.randn(4, 12, 4)
    for narrow in (False, True):
        network = build(3, 48, 12, **small)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
        losses = []
        for _ in range(20):
            with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
                forecast = network(x, marks, future).mean
            loss = (forecast.float() - x[:, :12]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0], losses
print(torch._C._dispatch_has_kernel_for_dispatch_key("tsattn::attention_forward", "CPU"))
"""
    environment = os.environ | {"CXX": "/nowhere/c++", "TSATTN_KERNELS": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "False\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"TSATTN_KERNELS": "/a/b"}, "/a/b"),
        ({"TSATTN_CACHE": "/a/b"}, "/a/b/kernels"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/tsattn/kernels"),
        ({"HOME": "/d"}, "/d/.cache/tsattn/kernels"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="the user's cache lies elsewhere")
def test_the_library_lies_in_the_users_cache_or_where_one_says(
    variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TSATTN_KERNELS", "TSATTN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert build._directory() == Path(folder)


def compiler(path: Path, first: str) -> str:
    """Write a compiler that does something first."""
    path.write_text(f'#!/bin/sh\n{first}\nexec {os.environ.get("CXX", "c++")} "$@"\n')
    path.chmod(0o755)
    return str(path)


def start(sources: Path, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CALLER, str(sources)],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("capability", "processor", "expected"),
    [("AVX512", True, True), ("AVX512", False, False), ("AVX2", True, False)],
)
def test_products_of_bfloat16_are_compiled_where_the_processor_has_them(
    capability: str, processor: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": processor})
    flags, library = build._instructions(), build._library.__wrapped__()
    assert ("-mavx512bf16" in flags) == expected
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": not processor})
    assert (build._library.__wrapped__() != library) == (capability == "AVX512")


def test_the_capability_is_one_that_the_sources_know() -> None:
    assert build._capability() in ("AVX512", "AVX2", "DEFAULT")
    assert build._capability() in (torch.backends.cpu.get_cpu_capability(), "DEFAULT")


@pytest.mark.parametrize(("lowered", "expected"), [("avx2", "AVX2"), ("default", "DEFAULT")])
def test_kernels_are_built_for_what_torch_was_lowered_to(lowered: str, expected: str) -> None:
    code = "from tsattn.ops import build; print(build._capability(), build._library().name)"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"ATEN_CPU_CAPABILITY": lowered},
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout.split()  # fmt: skip
    best = torch.backends.cpu.get_cpu_capability()
    if expected == "AVX2" and best not in ("AVX512", "AVX2"):
        pytest.skip(f"this processor has {best}")
    assert said[0] == expected
    assert (said[1] == build._library().name) == (expected == build._capability())
