"""The test sets that papers report on, as they are published, and others of the same kind."""

import dataclasses
from pathlib import Path

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.paths import to_path


@dataclasses.dataclass(frozen=True)
class TestSet:
    """A published set.

    Attributes:
        name: what `--test-set` takes.
        lq: what its folder of low-quality faces is called in the archives that go round.
        hq: the same of the originals; None where there are none.
        count: its images.
        source: where it is published.
    """

    name: str
    lq: tuple[str, ...]
    hq: tuple[str, ...] | None
    count: int
    source: str


_CELEBA_HQ = ("celeba_512_validation", "CelebA-Test-HQ")
_ALL = (
    TestSet(
        "celeba-test",
        ("celeba_512_validation_lq", "CelebA-Test-LQ"),
        _CELEBA_HQ,
        3000,
        "GFPGAN (xinntao.github.io/projects/gfpgan) and VQFR: the easier one, PSNR about 24 to 26",
    ),
    TestSet(
        "celeba-test-daefr",
        ("self_celeba_512_v2",),
        _CELEBA_HQ,
        3000,
        "DAEFR (huggingface.co/datasets/LIAGM/DAEFR_test_datasets): the harder one, PSNR about 20 to 22",
    ),
    TestSet("lfw-test", ("lfw_cropped_faces", "LFW-Test"), None, 1711, "GFPGAN, VQFR, DAEFR"),
    TestSet("webphoto-test", ("WebPhoto-Test",), None, 407, "GFPGAN (VQFR's README counts 469)"),
    TestSet("wider-test", ("Wider-Test", "WIDER-Test"), None, 970, "CodeFormer, DAEFR"),
    TestSet("celebchild-test", ("Child", "CelebChild-Test", "CelebChild"), None, 180, "GFPGAN, VQFR"),
)
TEST_SETS = {test_set.name: test_set for test_set in _ALL}
# What `interlcm dataset --frozen` writes.
LQ, HQ = "lq", "hq"


@dataclasses.dataclass(frozen=True)
class Folders:
    """Where a test set's images are: low quality, and the originals or None."""

    lq: Path
    hq: Path | None


def find_folders(path: Path, name: str | None = None) -> Folders:
    """The folders of a test set.

    Args:
        path: a folder that holds those of the published set under their own names; or lq/ and, if there are
            originals, hq/; or the low-quality images themselves.
        name: of the published set; None where it is another.

    Raises:
        InterLCMError: there is no such set; or the folder doesn't hold it, and the message says what is looked for.
    """
    path = to_path(path)
    if not path.is_dir():
        raise InterLCMError(f"{path}: {'not a folder' if path.exists() else 'no such folder'}")
    if name is None or (path / LQ).is_dir():
        if not (path / LQ).is_dir():
            return Folders(path, None)
        return Folders(path / LQ, path / HQ if (path / HQ).is_dir() else None)
    test_set = find_test_set(name)
    lq = _first(path, test_set.lq)
    hq = _first(path, test_set.hq or ())
    absent = [names for names, found in ((test_set.lq, lq), (test_set.hq, hq)) if names and found is None]
    if absent:
        wanted = "; ".join(" or ".join(f"{one}/" for one in names) for names in absent)
        raise InterLCMError(f"{path}: {name} isn't here: no {wanted} (nor {LQ}/); it is published by {test_set.source}")
    return Folders(lq, hq)


def find_test_set(name: str) -> TestSet:
    """The published set of this name.

    Raises:
        InterLCMError: there is none; the message lists those there are.
    """
    if name not in TEST_SETS:
        raise InterLCMError(f"no test set is called {name!r}; choose one of {', '.join(TEST_SETS)}")
    return TEST_SETS[name]


def _first(path: Path, names: tuple[str, ...]) -> Path | None:
    return next((path / name for name in names if (path / name).is_dir()), None)
