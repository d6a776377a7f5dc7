"""How diffusers names the weights of ControlNetModel: as it names a UNet's."""

from interlcm_jax.convert.unet import TABLE

__all__ = ["TABLE"]
