"""The platform that JAX computes on."""


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
