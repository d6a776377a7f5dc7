"""A folder of faces to a dataset of tensorflow-datasets: ArrayRecord shards, written and read without TensorFlow.

tensorflow-datasets' GeneratorBasedBuilder sorts what exceeds a gigabyte through TensorFlow's files. Its
SequentialWriter needs no TensorFlow, writes as it goes, and keeps the order.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from interlcm_jax.data.images import check_size, fit
from interlcm_jax.data.shards import write_manifest
from interlcm_jax.data.sources import INFO, SPLIT
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.atomic import whole_folder
from interlcm_jax.imaging.io import open_image, read_image

# About 100 MB of JPEGs of 512 pixels.
_SHARD = 1024
# Written together; each time the description is written too.
_CHUNK = 64
# Of all files: more bad ones than a download's few are a sign of the wrong folder.
_TOLERATED = 0.01
# After "\x89PNG\r\n\x1a\n", length, "IHDR", width and height: 8 bits a channel, RGB.
_PNG_RGB8 = slice(24, 26), b"\x08\x02"
_ORIENTATION = 0x0112


def build_faces(
    folder: Path, files: Sequence[Path], out: Path, size: int, progress: Callable[[], object] = lambda: None
) -> list[str]:
    """Writes a dataset of the files, in their order; it appears whole or not at all.

    JPEG and PNG files of the right size are kept byte by byte; others are resized (area interpolation) and become PNG.

    Args:
        folder: where the files are; records are named by their path in it.
        files: the images.
        out: the folder to make; `sources.Built` and `tfds.builder_from_directory` open it.
        size: of the images, pixels.
        progress: called after every file.

    Returns:
        What was wrong with the files that were left out.

    Raises:
        InterLCMError: files that are left out (they can't be read, aren't square, or are too small) are not below 1 %:
            each is named.
    """
    bad: list[str] = []
    with whole_folder(out, INFO) as temporary:
        writer = _writer(temporary, size)
        chunk: list[dict[str, Any]] = []
        for file in files:
            try:
                chunk.append({"image": encoded_face(file, size), "name": _name(file.relative_to(folder))})
            except InterLCMError as error:
                bad.append(str(error))
            if len(chunk) == _CHUNK:
                writer.add_examples({SPLIT: chunk})
                chunk = []
            progress()
        if bad and len(bad) >= _TOLERATED * len(files):
            lines = "\n".join(f"  {line}" for line in bad)
            raise InterLCMError(
                f"{folder}: {len(bad)} of {len(files)} images can't be taken, and only less than 1 % may be; nothing "
                f"was written:\n{lines}"
            )
        writer.add_examples({SPLIT: chunk})
        writer.close_all()
        write_manifest(temporary)
    return bad


def _writer(folder: Path, size: int) -> Any:
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(size, size, 3)), "name": tfds.features.Text()}
    )
    identity = tfds.core.DatasetIdentity(
        name="faces", version=tfds.core.Version("1.0.0"), data_dir=str(folder), module_name=__name__
    )
    information = tfds.core.DatasetInfo(
        builder=identity, description="Aligned faces.", features=features, disable_shuffling=True
    )
    writer = tfds.core.SequentialWriter(information, max_examples_per_shard=_SHARD, file_format="array_record")
    writer.initialize_splits([SPLIT])
    return writer


def encoded_face(path: Path, size: int) -> bytes:
    """A face as JPEG or PNG, RGB with 8 bits a channel, at the size asked for: the file itself if it is that.

    Raises:
        InterLCMError: the file can't be read, isn't square, or is too small.
    """
    # Decoded in any case: a file that breaks off shows only then.
    pixels = read_image(path)
    height, width, _ = pixels.shape
    check_size(path, width, height)
    encoded = path.read_bytes()
    if width == size and _is_plain(encoded):
        return encoded
    stream = io.BytesIO()
    # Level 6, the default, takes three times as long for 2 % less.
    Image.fromarray(fit(pixels, size)).save(stream, "PNG", compress_level=3)
    return stream.getvalue()


def _name(path: Path) -> str:
    r"""A file's name as text: what isn't UTF-8 in it as \udcff and so on."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode()


def _is_plain(encoded: bytes) -> bool:
    """Whether every decoder reads the same from it: no palette, transparency, 16 bits or turning by EXIF."""
    with open_image(io.BytesIO(encoded)) as image:
        if image.mode != "RGB" or image.has_transparency_data or image.getexif().get(_ORIENTATION, 1) != 1:
            return False
        where, rgb8 = _PNG_RGB8
        return image.format == "JPEG" or (image.format == "PNG" and encoded[where] == rgb8)
