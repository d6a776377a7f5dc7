"""What an image file carries besides its pixels, as far as it holds for a restored copy too."""

import dataclasses
import io
import re
from typing import Any

from PIL import ExifTags, Image, ImageCms
from PIL.PngImagePlugin import PngInfo

# Of the main directory: what tells about the picture. The others tell how the file it came from was stored.
EXIF_TAGS = tuple(
    ExifTags.Base[name].value
    for name in (
        *("ImageDescription", "Make", "Model", "Software", "DateTime", "Artist", "HostComputer", "Copyright"),
        *("Rating", "RatingPercent", "XPTitle", "XPComment", "XPAuthor", "XPKeywords", "XPSubject"),
    )
)
# The size may change, the thumbnail's and the maker note's offsets point into the old file.
EXIF_DROPPED = tuple(
    ExifTags.Base[name].value
    for name in ("ExifImageWidth", "ExifImageHeight", "ExifInteroperabilityOffset", "MakerNote")
)
# Other programs with Pillow read no larger profile or text out of a PNG.
PNG_ICC_BYTES = PNG_TEXT_BYTES = 2**20
# A JPEG segment holds 65,533 bytes, for XMP its name included.
JPEG_EXIF_BYTES, JPEG_XMP_BYTES = 65_533, 65_504
# XMP that describes further pictures or films within the file (gain maps, motion photos), which a copy has not.
XMP_OF_CONTAINERS = re.compile(rb"Container:|GCamera:|hdrgm:")
XMP_ORIENTATION = re.compile(rb'(tiff:Orientation(?:="|>))[0-9]')


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What is carried from an image file to the restored one.

    Attributes:
        icc: the ICC profile of the RGB pixels; None stands for sRGB.
        exif: EXIF of an upright picture, with neither thumbnail nor maker note.
        xmp: XMP, with the orientation upright.
        text: keys and texts of a PNG.
        dpi: pixels per inch, horizontal and vertical.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    text: tuple[tuple[str, str], ...] = ()
    dpi: tuple[float, float] | None = None


def read_metadata(image: Image.Image, icc: bytes | None) -> Metadata:
    """What is worth carrying of a loaded image; what is corrupt is left out.

    Args:
        image: as Pillow loaded it, from any format.
        icc: the profile of the RGB pixels made of it.
    """
    xmp = image.info.get("xmp")
    if not isinstance(xmp, bytes) or XMP_OF_CONTAINERS.search(xmp):
        xmp = None
    texts = getattr(image, "text", {}) if image.format == "PNG" else {}
    return Metadata(
        icc=icc,
        exif=_exif(image),
        xmp=xmp and XMP_ORIENTATION.sub(rb"\g<1>1", xmp),
        # Other programs keep XMP and EXIF as text; these are read and carried as what they are.
        text=tuple(
            (key, str(text))
            for key, text in texts.items()
            if not key.startswith(("XML:com.adobe", "Raw profile")) and len(text) <= PNG_TEXT_BYTES
        ),
        dpi=_dpi(image.info.get("dpi")),
    )


def _exif(image: Image.Image) -> bytes | None:
    # Broken EXIF fails in every way there is, in a warning too, and is no reason to lose the picture.
    try:
        source, exif = image.getexif(), Image.Exif()
        for tag in EXIF_TAGS:
            if tag in source:
                exif[tag] = _as_stored(source[tag])
        for folder in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            tags = {tag: value for tag, value in source.get_ifd(folder).items() if tag not in EXIF_DROPPED}
            if tags:
                exif[folder.value] = tags
        return exif.tobytes() if len(exif) else None
    except Exception:
        return None


def _as_stored(value: Any) -> Any:
    # Pillow decodes texts as Latin-1 and encodes them as ASCII. Their bytes, mostly UTF-8, come through whole, but only
    # for the main directory does it know that they are text.
    return value.encode("latin-1") if isinstance(value, str) else value


def _dpi(value: object) -> tuple[float, float] | None:
    try:
        x, y = (float(v) for v in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 1 <= x <= 65_535 and 1 <= y <= 65_535 else None


def to_srgb(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes | None]:
    """RGB of an image of any colors, and the profile that these numbers are in (None: sRGB).

    RGB stays as it is, with its profile, unless that is too large to be written. CMYK and gray are converted to sRGB by
    their own profile if they have one.

    Args:
        image: 8 bits a channel, without transparency.
        icc: the profile in its file.

    Raises:
        ValueError: there is no conversion from the image's colors.
    """
    space = {"CMYK": "CMYK", "L": "GRAY"}.get(image.mode, "RGB")
    profile, own = _profile(icc)
    if profile is None or own != space:
        return image.convert("RGB"), icc if own == "RGB" and space == "GRAY" else None
    if own == "RGB" and len(icc) <= PNG_ICC_BYTES:
        return image.convert("RGB"), icc
    try:
        return ImageCms.profileToProfile(
            image,
            profile,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        ), None
    except ImageCms.PyCMSError:
        return image.convert("RGB"), None


def _profile(icc: bytes | None) -> tuple[ImageCms.ImageCmsProfile | None, str]:
    """The parsed profile and its color space; None where it is missing or corrupt, in whatever way."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc)) if icc else None
        return profile, profile.profile.xcolor_space.strip() if profile else ""
    except Exception:
        return None, ""


def _with_xmp(metadata: Metadata) -> Image.Exif:
    """EXIF with XMP among its tags, as TIFF keeps it."""
    exif = Image.Exif()
    if metadata.exif:
        exif.load(metadata.exif)
        for tag, value in exif.items():
            exif[tag] = _as_stored(value)
    if metadata.xmp:
        exif[ExifTags.Base.XMLPacket.value] = metadata.xmp
    return exif


def save_options(metadata: Metadata, suffix: str) -> dict[str, Any]:
    """Arguments for Pillow's `save` that store all that the format of `suffix` has a place for."""
    options: dict[str, Any] = {"dpi": metadata.dpi, "icc_profile": metadata.icc, "exif": metadata.exif}
    if suffix == ".png":
        options["pnginfo"] = PngInfo()
        for key, value in metadata.text:
            options["pnginfo"].add_text(key, value)
        if metadata.xmp:
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", metadata.xmp.decode(errors="replace"))
    elif suffix in (".tif", ".tiff"):
        options["exif"] = _with_xmp(metadata)
    elif suffix == ".webp":
        options["xmp"] = metadata.xmp
    elif suffix in (".jpg", ".jpeg"):
        options["exif"] = metadata.exif if len(metadata.exif or b"") <= JPEG_EXIF_BYTES else None
        options["xmp"] = metadata.xmp if len(metadata.xmp or b"") <= JPEG_XMP_BYTES else None
    return {name: value for name, value in options.items() if value}
