import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from interlcm_jax.convert.rules import CONV1D, CONV2D, LINEAR, Rule, Table, places, to_jax, to_torch
from interlcm_jax.errors import WeightsError
from interlcm_jax.files.safetensors import from_array
from interlcm_jax.models.weights import skeleton

TABLE = Table(
    rules=(
        Rule(r"(conv\d*)\.kernel", r"\1.weight", CONV2D),
        Rule(r"(proj)\.kernel", r"\1.weight", LINEAR),
        Rule(r"(tokens)\.kernel", r"\1.weight", CONV1D),
        Rule(r"(.*)\.(bias|scale)", r"\1.\2"),
        Rule(r"(extra)\.kernel", r"\1.weight", optional=True),
    ),
    renames=((r"^old_(\w+)\.", r"\1."),),
    ignored=(r".*\.position_ids",),
)
SHAPES = {
    "conv.kernel": (3, 2, 4, 5),
    "conv.bias": (5,),
    "proj.kernel": (6, 7),
    "proj.bias": (7,),
    "tokens.kernel": (3, 4, 5),
}
TORCH_SHAPES = {
    "conv.weight": (5, 4, 3, 2),
    "conv.bias": (5,),
    "proj.weight": (7, 6),
    "proj.bias": (7,),
    "tokens.weight": (5, 4, 3),
}
SKELETON = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in SHAPES.items()}


def torch_weights(**changes):
    rng = np.random.default_rng(0)
    arrays = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in TORCH_SHAPES.items()}
    return arrays | {key.replace("__", "."): value for key, value in changes.items()}


def lazy(arrays):
    return {key: from_array(array, "source") for key, array in arrays.items()}


def refused(arrays, table=TABLE):
    with pytest.raises(WeightsError) as error:
        to_jax(lazy(arrays), SKELETON, table, "weights.pth")
    return str(error.value)


def test_layouts_there_and_back():
    arrays = torch_weights()
    weights = to_jax(lazy(arrays), SKELETON, TABLE, "weights.pth")
    assert {path: tensor.read().shape for path, tensor in weights.items()} == SHAPES
    np.testing.assert_array_equal(weights["conv.kernel"].read()[2, 1, 3, 0], arrays["conv.weight"][0, 3, 2, 1])
    np.testing.assert_array_equal(weights["tokens.kernel"].read()[2, 1, 3], arrays["tokens.weight"][3, 1, 2])
    back = to_torch(weights, SKELETON, TABLE)
    assert back.keys() == arrays.keys()
    for key, array in arrays.items():
        assert back[key].shape == array.shape
        np.testing.assert_array_equal(back[key].read(), array)


def test_old_names_and_ignored_keys():
    arrays = torch_weights(text__position_ids=np.arange(3))
    arrays["old_proj.bias"] = arrays.pop("proj.bias")
    weights = to_jax(lazy(arrays), SKELETON, TABLE, "weights.pth")
    np.testing.assert_array_equal(weights["proj.bias"].read(), arrays["old_proj.bias"])


def test_every_fault_is_in_one_error():
    arrays = torch_weights(
        conv__bias=np.zeros((4,), np.float32),
        proj__weight=np.zeros((6, 7), np.float32),
        stray1=np.zeros(1, np.float32),
        stray2=np.zeros(1, np.float32),
        old_proj__bias=np.zeros(7, np.float32),
        tokens__weight=np.zeros((5, 4, 3), np.int32),
    )
    del arrays["conv.weight"]
    text = refused(arrays)
    assert "weights.pth:" in text
    assert "1 duplicate keys: proj.bias (also as old_proj.bias)" in text
    assert "1 missing keys: conv.weight" in text
    assert "2 unexpected keys: stray1, stray2" in text
    assert "2 mis-shaped keys: conv.bias (4,) instead of (5,), proj.weight (6, 7) instead of (7, 6)" in text
    assert "1 keys that aren't floating point: tokens.weight (int32)" in text


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_float_types_are_accepted(dtype):
    arrays = {key: array.astype(dtype) for key, array in torch_weights().items()}
    assert to_jax(lazy(arrays), SKELETON, TABLE, "weights.pth")["conv.bias"].dtype == dtype


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_, np.complex64])
def test_other_types_are_not(dtype):
    assert "conv.bias" in refused(torch_weights(conv__bias=np.zeros(5, dtype)))


def test_an_empty_file_misses_all():
    assert "5 missing keys: conv.bias, conv.weight, proj.bias, proj.weight, tokens.weight" in refused({})


def test_the_table_is_checked_as_strictly():
    rules = (
        Rule(r"conv\.kernel", "same.weight", CONV2D),
        Rule(r"proj\.kernel", "same.weight", LINEAR),
        Rule(r"conv\.bias", "conv.bias"),
        Rule(r"(.*)\.bias", r"\1.bias"),
        Rule(r"absent\.kernel", "absent.weight"),
        Rule(r"absent\.bias", "absent.bias", optional=True),
    )
    with pytest.raises(WeightsError) as error:
        places(SKELETON, Table(rules))
    text = str(error.value)
    assert "conv.bias: 2 rules" in text
    assert "tokens.kernel: 0 rules" in text
    assert r"rule never used: absent\.kernel" in text
    assert r"absent\.bias" not in text
    assert "1 keys named twice: same.weight" in text


def test_a_rule_must_match_the_whole_path():
    with pytest.raises(WeightsError, match=r"conv\.kernel: 0 rules"):
        places({"conv.kernel": SKELETON["conv.kernel"]}, Table((Rule("conv", "conv"), Rule("kernel", "kernel"))))


def test_skeleton_lists_parameters_and_statistics():
    class Network(nnx.Module):
        def __init__(self):
            self.layers = nnx.List([nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.BatchNorm(3, rngs=nnx.Rngs(0))])

    expected = {"layers.0.kernel": (2, 3), "layers.0.bias": (3,), "layers.1.mean": (3,), "layers.1.var": (3,)}
    expected |= {"layers.1.scale": (3,), "layers.1.bias": (3,)}
    for network in (Network(), nnx.eval_shape(Network)):
        assert {path: spec.shape for path, spec in skeleton(network).items()} == expected
