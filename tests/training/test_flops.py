"""FLOPs counted from a jaxpr, on functions of known numbers."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, PartitionSpec

from interlcm_jax.training.flops import matrix_flops


def flops(function, *shapes: tuple[int, ...]) -> float:
    return matrix_flops(jax.make_jaxpr(function)(*(jnp.zeros(shape) for shape in shapes)).jaxpr)


def test_flops_of_products_convolutions_and_loops():
    product = 2 * 3 * 4 * 5
    assert flops(lambda x, y: x @ y, (3, 4), (4, 5)) == product
    assert flops(lambda x, y: jax.lax.scan(lambda c, _: (c, x @ y), 0, length=7)[1], (3, 4), (4, 5)) == 7 * product
    assert flops(lambda x, y: jax.lax.cond(True, lambda: x @ y, lambda: 0 * x @ y @ y.T @ y), (3, 4), (4, 5)) > product
    names = ("NHWC", "HWIO", "NHWC")
    convolve = lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=names)  # noqa: E731
    assert flops(convolve, (2, 8, 8, 3), (3, 3, 3, 5)) == 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3)


def test_a_backward_pass_takes_twice_the_flops_and_what_is_rematerialized_counts_again():
    def chain(x, y):
        return jnp.sin(x @ y) @ y

    plain = flops(jax.grad(lambda x, y: chain(x, y).sum(), (0, 1)), (4, 4), (4, 4))
    again = flops(jax.grad(lambda x, y: jax.checkpoint(chain)(x, y).sum(), (0, 1)), (4, 4), (4, 4))
    one = 2 * 4**3
    assert (plain, again) == (6 * one, 7 * one)


def test_a_kernel_split_over_the_mesh_counts_on_every_device():
    axes = Mesh(jax.devices()[:4], ("data",), axis_types=(AxisType.Auto,))
    split = jax.shard_map(
        lambda x: x @ x.T, mesh=axes, in_specs=PartitionSpec("data"), out_specs=PartitionSpec("data"), check_vma=False
    )
    assert flops(split, (8, 3)) == 4 * 2 * (2 * 3 * 2)
