"""Strict JAX for every test: what would be a silent slip in a user's program is an error here."""

import os
import tempfile

# Tests spend their time on compiling: machine code of level 1 takes three quarters of that. At level 0 small
# gradients round too differently from PyTorch's.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

# The run's own cache of compiled programs: tests that build the same program again needn't compile it again, and
# nothing is kept from one run to the next.
_CACHE = tempfile.TemporaryDirectory(prefix="interlcm-tests-")
jax.config.update("jax_compilation_cache_dir", _CACHE.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
