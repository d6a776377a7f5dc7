"""The files with the networks of the metrics: which they are, where they are published, and loading them.

None comes with this package, and none is downloaded: what has no file is not measured.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from flax import nnx

from interlcm_jax.convert.checkpoints import read_weights
from interlcm_jax.convert.rules import Table, to_jax
from interlcm_jax.errors import InterLCMError, WeightsError
from interlcm_jax.files.atomic import whole_file
from interlcm_jax.files.safetensors import LazyTensor, write_safetensors
from interlcm_jax.models.weights import ShardingRule, abstract, fill, lazy_weights, misfits, skeleton

Network = TypeVar("Network", bound=nnx.Module)


@dataclasses.dataclass(frozen=True)
class Published:
    """A public file that a metric needs.

    Attributes:
        metric: what is measured with it.
        content: what the file holds.
        file: its published name.
        source: where it is published.
        license: what is known of its license.
    """

    metric: str
    content: str
    file: str
    source: str
    license: str

    def check(self, path: Path) -> None:
        """Checks that a file is there.

        Raises:
            InterLCMError: it isn't; the message says which public file is meant and where it is.
        """
        if not path.is_file():
            raise InterLCMError(
                f"{path}: {'not a file' if path.exists() else 'no such file'}. {self.metric} needs {self.content}: "
                f"{self.file}, published by {self.source} (license: {self.license}). "
                "Download it and give its path; without it this metric is left out."
            )


INCEPTION = Published(
    metric="FID",
    content="Inception-v3 as FID uses it",
    file="pt_inception-2015-12-05-6726825d.pth",
    source="github.com/mseitzer/pytorch-fid, release fid_weights",
    license="Apache-2.0",
)
FFHQ = Published(
    metric="FID (FFHQ)",
    content="the statistics of 50,000 FFHQ faces at 512 pixels",
    file="inception_FFHQ_512-f7b384ab.pth",
    source="github.com/XPixelGroup/BasicSR, docs/Metrics.md; github.com/TencentARC/VQFR as inception_FFHQ_512.pth",
    license="not stated; FFHQ is CC BY-NC-SA 4.0",
)
DEG = Published(
    metric="Deg",
    content="the face recognizer resnet_face18 of arcface-pytorch",
    file="resnet18_110.pth",
    source="github.com/ronghuaiyang/arcface-pytorch, and github.com/TencentARC/VQFR among its metric weights",
    license="not stated",
)
IDA = Published(
    metric="IDA",
    content="GFPGAN's face recognizer ResNetArcFace",
    file="arcface_resnet18.pth",
    source="github.com/TencentARC/GFPGAN, release v0.1.0",
    license="not stated; GFPGAN's code is Apache-2.0",
)
FAN = Published(
    metric="LMD",
    content="AdaptiveWing's landmark network FAN, 98 points",
    file="alignment_WFLW_4HG.pth",
    source="github.com/xinntao/facexlib, release v0.1.0, and github.com/TencentARC/VQFR among its metric weights",
    license="not stated; facexlib's code is MIT",
)
PUBLISHED = (INCEPTION, FFHQ, DEG, IDA, FAN)


def read_published(path: str | Path, published: Published) -> dict[str, LazyTensor]:
    """Lists the tensors of a public file, or of one that `save` made of it, without reading them.

    Raises:
        InterLCMError: there is no such file, or PyTorch isn't installed and the file is PyTorch's.
        WeightsError: it isn't whole, or its pickle would run code.
    """
    published.check(Path(path))
    return read_weights(path)


def build(
    network: Callable[[nnx.Rngs], Network],
    tensors: Mapping[str, LazyTensor],
    table: Table,
    origin: str | Path,
    sharding: ShardingRule | None = None,
) -> Network:
    """A network with weights by PyTorch's keys, or by ours.

    Args:
        network: makes it, given random streams.
        tensors: its weights, unread.
        table: PyTorch's names for them.
        origin: the file, for messages.
        sharding: where each weight goes; None is the default device.

    Raises:
        WeightsError: the weights don't fit, or aren't finite; every offending key is named.
    """
    loaded = abstract(network)
    shapes = skeleton(loaded)
    # What PyTorch calls a weight is a kernel here.
    if any(key.endswith(".kernel") for key in tensors):
        if problems := misfits(tensors, {path: spec.shape for path, spec in shapes.items()}):
            raise WeightsError(origin, problems, "These weights don't fit this network; is it the right file?")
    else:
        tensors = to_jax(tensors, shapes, table, Path(origin))
    fill(loaded, tensors, origin, sharding)
    return loaded


def save(network: nnx.Module, path: str | Path) -> None:
    """Writes a network as safetensors, which loads without PyTorch; the file appears whole or not at all."""
    with whole_file(Path(path)) as temporary:
        write_safetensors(temporary, lazy_weights(network))
