"""Which images are compared: folders matched by name, with everything that has no partner named."""

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from interlcm_jax.errors import InterLCMError
from interlcm_jax.imaging.listing import find_images

Files = dict[str, Path]


class Pair(NamedTuple):
    """A restored image and, where it has one, its original.

    Attributes:
        name: the original's path in its folder, without the suffix.
        restored: the file.
        hq: the original's, or None.
    """

    name: str
    restored: Path
    hq: Path | None = None


def images_by_name(folder: Path, ending: str = "") -> tuple[Files, list[str]]:
    """The images in a folder and its inner folders by name, and what can't be taken.

    A name is the path in the folder without the suffix (.png and so on) and the ending, its accents in the form (NFC)
    that all systems but the Mac write.

    Args:
        folder: where they are.
        ending: what all names end in, such as the "_00" of CodeFormer's and GFPGAN's results; where none does, it is
            no part of this folder's names.

    Raises:
        InterLCMError: it isn't a folder, holds no images, or two of its images have the same name.
    """
    found = find_images(folder)
    problems = [f"{closed}: can't be opened" for closed in found.closed]
    named = [(_name(file.relative_to(folder)), file) for file in found.images]
    ending = unicodedata.normalize("NFC", ending)
    if not any(name.endswith(ending) for name, _ in named):
        ending = ""
    images: Files = {}
    for name, file in named:
        if not name.endswith(ending):
            problems.append(f"{file}: the name doesn't end in {ending}")
            continue
        name = name.removesuffix(ending)
        if name in images:
            raise InterLCMError(f"{file}: the same name as {images[name].name}; images are matched without the suffix")
        images[name] = file
    if not images:
        raise InterLCMError(f"{folder}: no images in this folder that can be taken")
    return images, problems


def _name(path: Path) -> str:
    return unicodedata.normalize("NFC", path.with_suffix("").as_posix())


def match(restored: Mapping[str, Path], hq: Mapping[str, Path] | None) -> tuple[list[Pair], list[str]]:
    """The pairs in order of name, and the files without a partner; without originals, every image by itself.

    Raises:
        InterLCMError: there is no pair at all.
    """
    if hq is None:
        return [Pair(name, restored[name]) for name in sorted(restored)], []
    pairs = [Pair(name, restored[name], hq[name]) for name in sorted(restored.keys() & hq.keys())]
    problems = [f"{restored[name]}: no reference of this name" for name in sorted(restored.keys() - hq.keys())]
    problems += [f"{hq[name]}: nothing restored of this name" for name in sorted(hq.keys() - restored.keys())]
    if not pairs:
        examples = " and ".join(f"{next(iter(files.values()))}" for files in (restored, hq))
        raise InterLCMError(f"no image has a reference of the same name: {examples}, for instance")
    return pairs, problems
