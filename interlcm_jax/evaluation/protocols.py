"""The protocols: a name fixes every choice, so that two numbers under one name can be compared."""

import dataclasses
from collections.abc import Sequence

from interlcm_jax.errors import InterLCMError
from interlcm_jax.evaluation.catalog import METRICS
from interlcm_jax.evaluation.metric import Metric


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A set of metrics, each computed in one way.

    Attributes:
        name: what `--protocol` takes.
        about: who uses it.
        metrics: names in `catalog.METRICS`, in the order of tables.
    """

    name: str
    about: str
    metrics: tuple[str, ...]

    def choose(self, wanted: Sequence[str] | None = None) -> list[Metric]:
        """Its metrics, or those asked for by name or by title, in its own order.

        Raises:
            InterLCMError: one that is asked for isn't in it.
        """
        own = [METRICS[name] for name in self.metrics]
        if wanted is None:
            return own
        known = {text for metric in own for text in (metric.name, metric.title.lower())}
        if unknown := [text for text in wanted if text.lower() not in known]:
            raise InterLCMError(
                f"the protocol {self.name} has no metric {', '.join(unknown)}; it has {', '.join(self.metrics)}"
            )
        asked = {text.lower() for text in wanted}
        return [metric for metric in own if asked & {metric.name, metric.title.lower()}]


_ALL = (
    Protocol(
        "basicsr",
        "BasicSR's PSNR and SSIM and each other metric as most papers on faces have it: the default",
        ("psnr", "ssim", "lpips", "fid-ffhq", "fid-hq", "deg", "similarity", "ida", "lmd", "musiq", "niqe"),
    ),
    Protocol("basicsr-y", "BasicSR's PSNR and SSIM of brightness alone", ("psnr-y", "ssim-y")),
    Protocol("vqfr", "VQFR's own scripts", ("psnr-matched", "ssim-matched", "lpips", "fid-ffhq", "deg", "lmd", "niqe")),
    Protocol(
        "daefr",
        "RestoreFormer++'s and DAEFR's scripts, with VQFR's for LMD and NIQE",
        ("psnr", "ssim", "lpips-bgr", "fid-ffhq", "ida", "lmd", "niqe"),
    ),
    Protocol(
        "installed",
        "what takes no weights but those that an installation brings; only PSNR and SSIM are in papers",
        ("psnr", "ssim", "onet", "sharpness"),
    ),
    Protocol("pmrf", "PMRF's scripts; its FID, by torch-fidelity, isn't here", ("psnr", "ssim", "lpips", "deg", "lmd")),
    Protocol("pyiqa-y", "pyiqa's defaults, but for LPIPS, which is VGG's", ("psnr", "ssim-pyiqa", "lpips", "musiq")),
)
PROTOCOLS = {protocol.name: protocol for protocol in _ALL}
DEFAULT = "basicsr"


def find_protocol(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        InterLCMError: there is none; the message lists those there are.
    """
    if name not in PROTOCOLS:
        raise InterLCMError(f"no protocol is called {name!r}; choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
