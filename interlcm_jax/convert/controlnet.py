"""The Spatial Encoder: diffusers names a ControlNet's weights as it names a UNet's, and the release has no config."""

import re
from collections.abc import Mapping

from interlcm_jax.convert.unet import TABLE
from interlcm_jax.models.controlnet import ControlNetConfig
from interlcm_jax.models.unet import UNetConfig

__all__ = ["TABLE", "infer_config"]


def infer_config(shapes: Mapping[str, tuple[int, ...]], unet: UNetConfig) -> ControlNetConfig:
    """The sizes of a ControlNet: block sizes and heads as its UNet's, the conditioning stack's off its weights.

    Args:
        shapes: shape of each tensor by PyTorch key. Where the conditioning stack isn't among them the released
            sizes are taken, and loading names the missing keys.
        unet: the UNet it works with.
    """
    first = shapes.get("controlnet_cond_embedding.conv_in.weight")
    if first is None or len(first) != 4:
        return ControlNetConfig.from_unet(unet)
    blocks = {int(m[1]): shape for key, shape in shapes.items() if (m := re.fullmatch(_BLOCK, key)) and shape}
    # Convolutions come in pairs; the second of each widens.
    widths = (first[0], *(blocks[i][0] for i in sorted(blocks) if i % 2))
    return ControlNetConfig.from_unet(unet, conditioning_channels=first[1], conditioning_embedding_out_channels=widths)


_BLOCK = r"controlnet_cond_embedding\.blocks\.(\d+)\.weight"
