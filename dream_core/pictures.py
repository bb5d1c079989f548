"""Image files as users have them: which kinds are read, and how each becomes upright RGB. Imports no torch."""

import struct
import zlib

from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "WEBP")
"""What is read. Pillow would try some forty parsers otherwise, by content, whatever the file is called."""

SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}

UNREADABLE = (
    OSError, SyntaxError, ValueError, TypeError, EOFError, ArithmeticError, LookupError, struct.error, zlib.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
"""What Pillow raises for files that are damaged, on purpose or not."""


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF says, in RGB without transparency. Changes the one given."""
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):  # 16 bits of grey, which `convert` would clip at 255
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if image.mode == "P":  # transparency in a palette is only understood on the way to RGBA
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")
