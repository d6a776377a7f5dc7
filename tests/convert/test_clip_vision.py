import numpy as np
import pytest

from interlcm_jax.convert.clip_vision import from_openai, openai_config
from interlcm_jax.errors import WeightsError
from interlcm_jax.files.safetensors import LazyTensor, from_array


def test_fused_projection_is_cut_without_reading_it_whole():
    array, asked = np.arange(12.0).reshape(6, 2), []

    def read(index):
        asked.append(index)
        return array[index]

    fused = LazyTensor((6, 2), array.dtype, "test", read)
    parts = from_openai({"visual.transformer.resblocks.0.attn.in_proj_weight": fused})
    assert not asked
    key = "vision_model.encoder.layers.0.self_attn.k_proj.weight"
    assert parts[key].shape == (2, 2)
    np.testing.assert_array_equal(parts[key].read(), array[2:4])
    np.testing.assert_array_equal(parts[key].transposed((1, 0)).read(), array[2:4].T)
    np.testing.assert_array_equal(parts[key].read((slice(1, 2),)), array[3:4])
    assert asked == [(slice(2, 4),)] * 3


def test_unknown_keys_are_kept_so_that_the_converter_names_them():
    odd = {"visual.attnpool.c_proj.bias": from_array(np.zeros(2), "test")}
    assert from_openai(odd) == odd


def test_weights_that_tell_the_sizes_are_named_when_missing():
    with pytest.raises(WeightsError, match=r"CLIP\.pt: 3 missing keys: visual\.conv1\.weight"):
        openai_config({"visual.class_embedding": from_array(np.zeros(2), "CLIP.pt")})
