"""The restoration compiled for a TPU without one: XLA's own count of FLOPs, bytes and memory, and its seconds.

    python -m benchmarks.tpu_compile --part chain unet --batch-size 1 8 --topology v5e:2x2

needs the TPU compiler (`pip install 'jax[tpu]'`), which runs on any Linux machine. The numbers are for one TPU core.

- "accessed" is what every operation of the program reads and writes, padded to the hardware's tiles, wherever the
  compiler put it: the fast memory on the chip counts as well, and a copy into it counts three or four times its size,
  so a weight fetched ahead counts up to five times. A kernel (Pallas) counts its operands and results once, unpadded.
- "through HBM" is what goes through the chip's main memory, which bounds the speed (`benchmarks/hbm_traffic.py`).
  Options that give operations more of the fast memory lower "accessed" and raise this.
- FLOPs and bytes of a loop are those of one pass through its body, however often it runs. The network calls are
  therefore unrolled; `--scan` compiles them as `InterLCM.restore` does, for its temporaries and compile time.
  `--vae-slice` makes loops too.
- Programs are compiled as the package compiles its restoration, without copies of weights ahead of their use
  (`interlcm_jax/compiler_options.py`); `--prefetch` leaves the choice to XLA, as for training.
- `--option xla_tpu_scoped_vmem_limit_kib=65536`, from MaxDiffusion's recipe for Stable Diffusion, gives operations more
  of the fast memory and leaves less for such copies.
- "temporaries" are what the program allocates besides arguments and results.
- "cycles" are the compiler's own estimates of all operations, added up; what waits for copies isn't in them.

`python -m benchmarks.tpu_compile --train ...` is `python -m benchmarks.tpu_train ...`, the training step.

Beside each row stand what others' programs take, compiled in the same way, and in brackets our share of it.
"""

import argparse
import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Sharding
from jax.typing import DTypeLike

from benchmarks.tpu_cost import Cost, Program, compiled, tpu
from interlcm_jax.files.atomic import whole_file
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.unet import UNet2DCondition
from interlcm_jax.models.vae import AutoencoderKL
from interlcm_jax.models.weights import abstract
from interlcm_jax.restoration import Networks, restore
from interlcm_jax.runtime.compiler_options import RESTORATION

# bfloat16 on v5e, the chain without CLIP and Visual Encoder: diffusers 0.34's Flax classes, and MaxDiffusion of August
# 2026, whose kernel's FLOPs aren't counted. HBM by `benchmarks.diffusers_flax`, compiled under jax 0.10.2.
OTHERS: dict[tuple[str, int], dict[str, Cost]] = {
    ("chain", 1): {"diffusers-Flax": Cost(7.10, 55.8, 27.8, 0.71, seconds=355)},
    ("chain", 8): {"diffusers-Flax": Cost(52.2, 197.3, 176.7, 3.10, seconds=326)},
    ("unet", 1): {"diffusers-Flax": Cost(0.85, 10.9, 4.49, 0.33)},
    ("unet", 8): {
        "diffusers-Flax": Cost(5.81, 34.1, 29.1, 2.52, seconds=100),
        "MaxDiffusion, plain attention": Cost(6.31, 67.4, None, 4.49, seconds=100),
        "MaxDiffusion, flash kernel": Cost(None, 26.8, None, 0.50, seconds=100),
    },
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a program is built for: sizes, batch, dtype, where its arrays lie, and `restore`'s options."""

    config: ModelConfig
    batch: int
    dtype: DTypeLike
    sharding: Sharding
    unroll: bool = True
    vae_slice: int | None = None

    def array(self, *shape: int) -> jax.ShapeDtypeStruct:
        """A float32 input of the program, one row for each image."""
        return jax.ShapeDtypeStruct((self.batch, *shape), jnp.float32, sharding=self.sharding)

    def image(self) -> jax.ShapeDtypeStruct:
        """The images at the size the weights were trained on."""
        return self.array(self.config.image_size, self.config.image_size, 3)

    def latents(self) -> jax.ShapeDtypeStruct:
        """Their latents."""
        return self.array(*self.config.latent_shape(self.image().shape))

    def network(self, kind: type[nnx.Module], config: Any) -> tuple[nnx.GraphDef, Any]:
        """A network's structure, and its weights as shapes."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.dtype}
        graph, weights = nnx.split(abstract(lambda rngs: kind(config, rngs=rngs, **dtypes)))
        return graph, jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape, w.dtype, sharding=self.sharding), weights)


def chain(setting: Setting) -> Program:
    """Everything from the LQ images to the restored ones, but for the color fix."""
    graph, weights = setting.network(Networks, setting.config)
    latents = setting.latents()
    noise = jax.ShapeDtypeStruct(
        (setting.config.num_network_calls, *latents.shape), jnp.float32, sharding=setting.sharding
    )

    def run(weights, lq, noise):
        options = {"unroll": setting.unroll, "vae_slice": setting.vae_slice}
        return restore(nnx.merge(graph, weights), setting.config, lq, noise, **options)

    return run, (weights, setting.image(), noise)


def unet(setting: Setting) -> Program:
    """One call of the UNet, without the ControlNet's residuals."""
    config = setting.config.unet
    graph, weights = setting.network(UNet2DCondition, config)
    context = setting.array(setting.config.visual_encoder.context_tokens, config.cross_attention_dim)
    inputs = setting.latents(), setting.array(), context, setting.array(config.time_cond_proj_dim)
    return lambda weights, *inputs: nnx.merge(graph, weights)(*inputs), (weights, *inputs)


def encode(setting: Setting) -> Program:
    """The VAE's encoder."""
    graph, weights = setting.network(AutoencoderKL, setting.config.vae)
    return lambda weights, image: nnx.merge(graph, weights).encode(image)[0], (weights, setting.image())


def decode(setting: Setting) -> Program:
    """The VAE's decoder."""
    graph, weights = setting.network(AutoencoderKL, setting.config.vae)
    return lambda weights, latents: nnx.merge(graph, weights).decode(latents), (weights, setting.latents())


PARTS: dict[str, Callable[[Setting], Program]] = {"chain": chain, "unet": unet, "encode": encode, "decode": decode}


def rows(part: str, batch: int, topology: str, cost: Cost, others: dict[str, Cost]) -> Iterator[str]:
    """A program's row of the table, and a row for each of the others' with our share of it in brackets."""
    names = [field.name for field in dataclasses.fields(Cost)]
    digits = {"seconds": 0, "megacycles": 0}
    numbers = {name: getattr(cost, name) for name in names}
    ours = ["" if number is None else f"{number:.{digits.get(name, 2)}f}" for name, number in numbers.items()]
    yield f"| **{part}** | {batch} | {topology} | {' | '.join(ours)} |"
    for label, other in others.items():
        cells = []
        for name in names:
            theirs = getattr(other, name)
            share = "" if theirs is None or numbers[name] is None else f" ({numbers[name] / theirs:.2f})"
            cells.append("" if theirs is None else f"{theirs:g}{share}")
        yield f"| {label} | {batch} | {topology} | {' | '.join(cells)} |"


def main(argv: list[str] | None = None) -> None:
    """Compiles what was asked for, one after the other, and prints the table as it grows."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--train"]:
        # It takes its devices from here, so it can't be imported above.
        from benchmarks import tpu_train

        return tpu_train.main(argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=["chain", "unet"], help="default: chain unet")
    parser.add_argument("--batch-size", nargs="+", type=int, default=[1, 8], help="default: 1 8")
    parser.add_argument("--topology", nargs="+", default=["v5e:2x2"], help="default: v5e:2x2")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="default: bfloat16")
    parser.add_argument("--scan", action="store_true", help="the network calls as a loop, as InterLCM.restore has them")
    parser.add_argument("--vae-slice", type=int, metavar="N", help="images in the chain's VAE at a time; default: all")
    parser.add_argument("--prefetch", action="store_true", help="let XLA copy weights into the fast memory ahead")
    parser.add_argument("--option", nargs="+", default=[], metavar="NAME=VALUE", help="options for the compiler")
    parser.add_argument("--miniature", action="store_true", help="networks of a few channels, to try the script")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here too")
    parser.add_argument("--hlo", type=Path, metavar="DIR", help="write each program's optimized HLO here")
    options = parser.parse_args(argv)
    if wrong := [each for each in options.option if "=" not in each]:
        parser.error(f"--option {wrong[0]} isn't NAME=VALUE")
    told = {} if options.prefetch else dict(RESTORATION["tpu"])
    told |= dict(each.split("=", 1) for each in options.option)
    jax.config.update("jax_platforms", "cpu")

    config = ModelConfig.miniature() if options.miniature else ModelConfig.released()
    comparable = not options.miniature and not options.scan and not options.vae_slice and options.dtype == "bfloat16"
    print(
        "| program | batch | TPU | TFLOP | GB accessed | GB through HBM | GB temporaries | GB arguments | compile, s "
        "| million cycles |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    results = []
    for topology, part, batch in itertools.product(options.topology, options.part, options.batch_size):
        setting = Setting(config, batch, jnp.dtype(options.dtype), tpu(topology), not options.scan, options.vae_slice)
        cost, hlo = compiled(PARTS[part](setting), told)
        others = OTHERS.get((part, batch), {}) if comparable and topology.startswith("v5e") else {}
        print(*rows(part, batch, topology, cost, others), sep="\n", flush=True)
        results.append({"part": part, "batch": batch, "topology": topology, **dataclasses.asdict(cost)})
        if options.hlo:
            options.hlo.mkdir(parents=True, exist_ok=True)
            (options.hlo / f"{part}-{batch}-{topology.replace(':', '-')}.txt").write_text(hlo)
    if options.json:
        with whole_file(options.json) as temporary:
            temporary.write_text(
                json.dumps(
                    {
                        "dtype": options.dtype,
                        "scan": options.scan,
                        "vae_slice": options.vae_slice,
                        "options": told,
                        "programs": results,
                    },
                    indent=2,
                )
            )


if __name__ == "__main__":
    sys.exit(main())
