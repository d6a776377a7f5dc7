"""The platform that JAX computes on."""

from pathlib import Path

# From here on jaxlib leaves bfloat16 to oneDNN on a CPU (see `compiler_options`).
_ONEDNN_FROM = (0, 12)
# GPUs from Ampere on multiply in bfloat16.
_BFLOAT16_FROM_CAPABILITY = 8.0
_PROCESSOR = Path("/proc/cpuinfo")


def platform_problem() -> str | None:
    """Why JAX can't compute at all, in one sentence: JAX_PLATFORMS asks for what isn't there; None where it can."""
    import jax

    asked = jax.config.jax_platforms
    if not asked:
        return None
    try:
        jax.devices()
    # Of many kinds, and some without a word.
    except Exception as error:
        reason = f" ({str(error).splitlines()[0]})" if str(error) else ""
        plugin = "its plugin isn't installed, or this machine has no such device"
        return (
            f"JAX_PLATFORMS is {asked}, but JAX can't use it here{reason}: {plugin}. Install it, or unset JAX_PLATFORMS"
        )
    return None


def fastest_dtype() -> str:
    """The dtype in which JAX's default device computes fastest: "bfloat16", or "float32" where it lacks that."""
    import jax
    import jaxlib

    device = jax.local_devices()[0]
    if device.platform == "cpu":
        onednn = tuple(map(int, jaxlib.__version__.split(".")[:2])) >= _ONEDNN_FROM
        fast = onednn and _processor_has_bfloat16()
    elif device.platform == "gpu":
        capability = getattr(device, "compute_capability", "0")
        # AMD's are names, such as gfx942.
        fast = not capability.replace(".", "").isdigit() or float(capability) >= _BFLOAT16_FROM_CAPABILITY
    else:
        fast = True
    return "bfloat16" if fast else "float32"


def _processor_has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16, as far as the system says so."""
    try:
        flags = _PROCESSOR.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)
