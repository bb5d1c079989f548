"""A stranger's image as an honest PNG: decoded, turned upright, cut to the square that is used, encoded anew."""

import io
from dataclasses import dataclass
from pathlib import PurePosixPath

from PIL import Image, ImageOps

from dream_core.pictures import FORMATS, SUFFIXES, UNREADABLE, upright_rgb
from worker.unpacking import Refused

MAX_PIXELS = 25_000_000
"""What most cameras make. While it is decoded, an image takes some 18 bytes a pixel at worst (WEBP)."""
MAX_SIDE = 256
"""Recipes take no larger images."""
_GREY = ("1", "L", "LA", "I", "I;16", "I;16B")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A square RGB image as a PNG without any metadata, and what it was made of."""

    png: bytes
    width: int
    height: int
    grey: bool


def prepare(name: str, data: bytes) -> Prepared:
    """The image that a file holds, shrunk to 256 pixels if it is larger. Raises Refused, saying what is wrong."""
    try:
        with _open(data) as image:
            _refuse_misnamed(name, image)
            image.verify()
        with _open(data) as image:  # `verify` has used up the other
            grey, size = image.mode in _GREY, image.size
            image.draft(None, (2 * MAX_SIDE, 2 * MAX_SIDE))  # lets JPEG skip detail that shrinking would throw away
            square = _square(upright_rgb(image))
    except Refused as refused:
        raise Refused(refused.code, refused.message, name) from None
    except Image.UnidentifiedImageError as error:
        raise Refused("NOT_AN_IMAGE", "is no PNG, JPEG or WEBP inside; convert it, or leave it out", name) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise Refused("TOO_MANY_PIXELS", f"has more than {MAX_PIXELS:,} pixels; make it smaller", name) from error
    except UNREADABLE as error:
        raise Refused("DAMAGED_IMAGE", f"cannot be read ({error}); save it anew, or leave it out", name) from error
    square.info.clear()  # or profiles and comments would be written, too
    buffer = io.BytesIO()
    square.save(buffer, "PNG")
    return Prepared(buffer.getvalue(), *size, grey)


def _open(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    return image


def _refuse_misnamed(name: str, image: Image.Image) -> None:
    kind = "JPEG" if image.format == "MPO" else image.format  # a JPEG with a second picture in it, as phones make them
    suffix = PurePosixPath(name).suffix.lower()
    if SUFFIXES.get(suffix) != kind:
        raise Refused(
            "WRONG_EXTENSION", f"is a {kind}, not what {suffix or 'a name without an ending'} says; rename it"
        )
    if kind != "JPEG" and getattr(image, "n_frames", 1) > 1:
        raise Refused("ANIMATED", "is animated; save a single picture of it, or leave it out")


def _square(image: Image.Image) -> Image.Image:
    """The centre, which is all that is ever used of an image."""
    side = min(image.size)
    if side > MAX_SIDE:
        return ImageOps.fit(image, (MAX_SIDE, MAX_SIDE), Image.Resampling.BILINEAR)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))
