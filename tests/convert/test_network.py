"""Single networks: what `load_published` says of networks and dtypes that it doesn't load."""

import pytest

from interlcm_jax import InterLCMError
from interlcm_jax.convert.network import load_published
from interlcm_jax.models.unet import UNet2DCondition, UNetConfig
from interlcm_jax.models.visual_encoder import VisualEncoder


@pytest.mark.parametrize("network", [VisualEncoder, UNetConfig, "UNet2DCondition", None])
def test_another_class_than_those_that_are_published(tmp_path, network):
    with pytest.raises(InterLCMError, match=r"network is .*, but must be one of UNet2DCondition, ControlNet, "):
        load_published(network, tmp_path)


@pytest.mark.parametrize("options", [{"dtype": "int8"}, {"dtype": "float33"}, {"param_dtype": "int8"}])
def test_a_dtype_that_no_weights_are_in(tmp_path, options):
    with pytest.raises(InterLCMError, match=r"dtype is '(int8|float33)', but must be float32 or bfloat16 or float16"):
        load_published(UNet2DCondition, tmp_path, **options)
