"""PyAV, which brings FFmpeg; installed by the extra `video`."""

from interlcm_jax.errors import InterLCMError

try:
    import av
except ModuleNotFoundError as error:
    raise InterLCMError("videos need PyAV: pip install 'interlcm-jax[video]' brings it") from error

__all__ = ["av"]
