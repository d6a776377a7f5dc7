"""Strict JAX for every test: what would be a silent slip in a user's program is an error here."""

import ctypes
import gc
import math
import os
import signal
import sys
from pathlib import Path

# Tests spend their time on compiling, those in processes of their own too.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=1 "
    "--xla_cpu_emitter_verification_level=0",
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# What a shell runs in the background ignores Ctrl-C, and so would the programs that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import jax
import jaxtyping
import pytest

from tests import annotations  # noqa: F401 (the hook looks it up by name)
from tests.bucket_fixture import bucket  # noqa: F401

# Every annotation of the package holds, shapes included: before its first import.
jaxtyping.install_import_hook("interlcm_jax", "tests.annotations.checked")

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


# Programs compiled by a module are let go of after it where the process holds more bytes: all of them take gigabytes.
MEMORY = 1.2e9
SLOW_ROOMS = (
    "tests/test_train",
    "tests/test_docs",
    "tests/training/",
    "tests/parity/",
    "tests/benchmarks/",
    "tests/cli/",
)


@pytest.fixture
def unchecked():
    """Without the check, for what the package itself says of arrays that don't fit."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def pytest_configure(config):
    # xdist keeps the order below; by itself it takes the files with the most tests first.
    config.option.loadscopereorder = False
    # Beside pytest's own notes, for the other worker and the next run; --cache-clear ends it.
    if hasattr(config, "cache"):
        jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("programs")))


def pytest_collection_modifyitems(items):
    """The rooms that take longest first, so that all workers end together."""
    items.sort(key=lambda item: not item.nodeid.startswith(SLOW_ROOMS))


def pytest_collection_finish():
    # What is imported stays: looking through it at each collection takes a third of a second.
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _programs(request):
    """Tests spend their time on compiling, so machine code is optimized in modules marked `optimized` alone."""
    quick = request.node.get_closest_marker("optimized") is None
    if quick != jax.config.read("jax_disable_most_optimizations"):
        jax.clear_caches()
        jax.config.update("jax_disable_most_optimizations", quick)
    yield
    if _resident() > MEMORY:
        jax.clear_caches()
        gc.collect()
        # What the compiler has freed goes back to the system.
        if sys.platform == "linux":
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def _resident() -> float:
    """Bytes that this process holds; more than any bound where the system doesn't tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else math.inf
