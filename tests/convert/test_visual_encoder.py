import dataclasses

import pytest
from flax import nnx

from interlcm_jax.convert.rules import places
from interlcm_jax.convert.visual_encoder import TABLE, infer_config
from interlcm_jax.errors import InterLCMError, WeightsError
from interlcm_jax.models.visual_encoder import VisualEncoder, VisualEncoderConfig
from interlcm_jax.models.weights import skeleton

MINIATURE = VisualEncoderConfig.miniature()


def shapes(config=MINIATURE):
    network = nnx.eval_shape(lambda: VisualEncoder(config, rngs=nnx.Rngs(0)))
    return {place.key: place.shape for place in places(skeleton(network), TABLE).values()}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"attention": (True, False, True)},
        {"attention": (False, False, False)},
        {"layers_per_block": 3},
        {"block_out_channels": (8, 8, 16, 16, 24, 32), "attention": (False,) * 5 + (True,)},
        {"tokens": 5, "context_tokens": 3},
    ],
)
def test_infer_config(change):
    config = dataclasses.replace(MINIATURE, **change)
    assert infer_config(shapes(config), 48, norm_num_groups=8) == config


def renamed(old, new):
    return {key.replace(old, new): shape for key, shape in shapes().items()}


def without(*prefixes):
    return {key: shape for key, shape in shapes().items() if not key.startswith(prefixes)}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "only 0 blocks"),
        ({"unet.conv_in.weight": (4, 4, 3, 3)}, "unexpected keys: unet.conv_in.weight"),
        (without("blocks.3."), "blocks missing: blocks.3"),
        (without("blocks.7.", "blocks.8.", "blocks.9."), "blocks missing: blocks.7, blocks.8, blocks.9"),
        (renamed("blocks.3.q", "blocks.3.to_q"), r"blocks of an unknown kind: blocks.3 \(.*to_q.weight"),
        ({**without("blocks.6."), "blocks.6.weight": (32,)}, r"blocks.6 norm 32→32 instead of attn 32→32"),
        ({**shapes(), "blocks.1.conv.weight": (16, 16, 3)}, "blocks.1 resize 16→16 instead of resize 32→32"),
    ],
)
def test_what_does_not_fit_is_named(keys, message):
    with pytest.raises(WeightsError, match=message):
        infer_config(keys, 48, norm_num_groups=8)


def test_odd_width_of_clip_is_refused():
    with pytest.raises(InterLCMError, match="features 64"):
        infer_config(shapes(), 64, norm_num_groups=8)
