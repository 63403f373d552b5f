"""Pictures of any kind as 8-bit RGB: one rule for PIL images of every mode and for arrays of every dtype.

| what comes | white is |
|---|---|
| PIL `1`, `L`, `P`, `RGB`, `CMYK`, `YCbCr`, `LAB`, `HSV` and those with opacity | as Pillow converts them |
| PIL `I;16`, `I;16B`, `I;16L` | 65535; from a TIFF the value that its bits per sample allow |
| PIL `I` | what the file's format and bits say; without a file 65535, where the values go beyond 255 |
| PIL `F`, float arrays | 1.0 |
| bool arrays | True |
| whole-number arrays | 255; `uint16` that goes beyond 255: 65535 |

Other values are an error: where white is not known, no picture is guessed. Values in between are rounded, not cut off.
What is transparent is laid over `background`. Orientation in EXIF is applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_video.errors import VideoArrayError
from hf_video.video.frames.pixels import WHITE, is_uint16, over, turn

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike
    from PIL import Image

ORIENTATION = 274  # the tag, in EXIF and in TIFF
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
# EXIF's orientation as a display matrix (a, b, c, d).
TURNS = {
    2: (-1, 0, 0, 1), 3: (-1, 0, 0, -1), 4: (1, 0, 0, -1), 5: (0, 1, 1, 0), 6: (0, 1, -1, 0), 7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}  # fmt: skip


def image_to_rgb(image: Image.Image, *, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """Converts a PIL image of any mode to upright 8-bit RGB.

    Args:
        image: The image. Orientation that its EXIF asks for is applied; `ImageOps.exif_transpose` removes the entry, so
            nothing is turned twice; one that was turned by hand still has it, so delete it there.
        background: RGB from 0 to 255 that shows through where the image is transparent.

    Returns:
        uint8 RGB of shape (height, width, 3).

    Raises:
        VideoArrayError: Neither the mode nor the values say which value is white (`I` without a file, up to 255 or
            beyond 65535; `F` outside 0 to 1), or Pillow can't convert the mode.
    """
    pixels = _deep(image, background) if image.mode[0] in "IF" else _shallow(image, background)
    turned = orientation(image)  # after loading: Pillow turns a TIFF as it loads it
    return np.ascontiguousarray(turn(pixels, TURNS[turned])) if turned in TURNS else pixels


def array_to_rgb(array: np.ndarray, *, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """Converts an array of any dtype to 8-bit RGB.

    Args:
        array: (..., height, width, channels): one channel is grey, two are grey and opacity, three RGB, four RGB and
            opacity.
        background: RGB from 0 to 255 that shows through where the array is transparent.

    Returns:
        uint8 RGB of shape (..., height, width, 3).

    Raises:
        VideoArrayError: There are more channels, or values outside the range of the dtype (see the module).
    """
    channels = array.shape[-1]
    if not 1 <= channels <= 4:
        raise VideoArrayError(f"{channels} channels came, and 1 (grey), 2, 3 (RGB) or 4 are a picture")
    pixels = array_to_uint8(array)
    if channels == 3:
        return pixels
    if channels == 1:
        return np.repeat(pixels, 3, axis=-1)
    colour = pixels[..., :3] if channels == 4 else np.repeat(pixels[..., :1], 3, axis=-1)
    return over(colour, pixels[..., -1], background)


def array_to_uint8(array: np.ndarray, *, deep: bool = False) -> np.ndarray:
    """Values of any dtype as uint8: bool and floats from 0 to 1, whole numbers from 0 to 255, `uint16` beyond that from
    0 to 65535, with `deep` always. Raises VideoArrayError for other values."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return np.where(array, np.uint8(255), np.uint8(0))
    if array.dtype.kind not in "uif":
        raise VideoArrayError(f"pixels of dtype {array.dtype} came; uint8 (0 to 255) or float (0 to 1) is needed")
    if array.size == 0:
        return array.astype(np.uint8)
    if array.dtype.kind == "f":
        return _scaled(array, 1.0, "float")
    sixteen = is_uint16(array) and (deep or array.max() > 255)
    return _scaled(array, 65535 if sixteen else 255, "whole-number")


def array_of(array: ArrayLike | torch.Tensor) -> np.ndarray:
    """A tensor, from wherever it is, or an array as a numpy array. Types that numpy doesn't have become float32."""
    if not hasattr(array, "detach"):
        return np.asarray(array)
    tensor = array.detach().cpu()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def _scaled(array: np.ndarray, white: float, what: str) -> np.ndarray:
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= white):  # also where one of them is no number
        raise VideoArrayError(
            f"{what} pixels must lie in 0..{white:g} and these run from {low:g} to {high:g}; "
            "scale them, and pass uint8 (0 to 255) or float (0 to 1)"
        )
    if white == 255:
        return array.astype(np.uint8)
    precision = np.result_type(array.dtype, np.float32)
    return np.asarray(np.rint(np.multiply(array, 255 / white, dtype=precision))).astype(np.uint8)


def _shallow(image: Image.Image, background: tuple[int, int, int]) -> np.ndarray:
    """Modes of up to 8 bits a channel, which Pillow converts."""
    try:
        if image.mode in ("RGBa", "La"):  # multiplied by their opacity
            image = image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode])
        if image.mode == "LAB":
            from PIL import ImageCms

            lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
            return np.asarray(ImageCms.applyTransform(image, ImageCms.buildTransform(lab, srgb, "LAB", "RGB")))
        key = image.info.get("transparency")
        if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
            # The transparent colour of a PNG of 16 bits a channel, of which Pillow keeps the upper 8.
            pixels = np.asarray(image)
            shown = (pixels != np.array(key) // 256).any(-1)
            return over(pixels, np.where(shown, 255, 0).astype(np.uint8), background)
        palette = image.mode == "P" and getattr(image.palette, "mode", "RGB").endswith("A")
        if palette or image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            pixels = np.asarray(image.convert("RGBA"))
            return over(pixels[..., :3], pixels[..., 3], background)
        return np.asarray(image.convert("RGB"))
    except ValueError as error:
        raise VideoArrayError(f"Pillow can't make RGB of an image of mode {image.mode}: {error}") from None


def _deep(image: Image.Image, background: tuple[int, int, int]) -> np.ndarray:
    """Modes of more than 8 bits: `I;16` and its sisters, `I`, `F`."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    if image.mode == "F":
        white = 1.0
    elif image.mode.startswith("I;16"):
        white = 2 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
    else:
        values, white = _white_of_integers(image, values, tags)
    if tags.get(PHOTOMETRIC) == 0 and image.mode != "F":  # WhiteIsZero, which Pillow turns round for 8 bits only
        values = white - values
    pixels = _scaled(values, white, f"mode {image.mode}")
    pixels = np.repeat(pixels[..., None], 3, axis=-1)
    key = image.info.get("transparency")
    if isinstance(key, int):  # the grey value that is transparent
        return over(pixels, np.where(values == key, 0, 255).astype(np.uint8), background)
    return pixels


def _white_of_integers(image: Image.Image, values: np.ndarray, tags: Mapping[int, Any]) -> tuple[np.ndarray, int]:
    """Mode `I` holds 32 bits, of which a file uses some: its values, and which is white."""
    bits, signed = tags.get(BITS_PER_SAMPLE, (16,))[0], tags.get(SAMPLE_FORMAT, (1,))[0] == 2
    if image.format == "TIFF" and not signed:
        return (values.view(np.uint32) if bits == 32 else values), 2**bits - 1
    if image.format in ("PNG", "PPM", "JPEG2000"):
        return values, 65535
    low, high = int(values.min()), int(values.max())
    if signed or low < 0 or high > 65535 or 0 < high <= 255:
        raise VideoArrayError(
            f"an image of mode I has values from {low} to {high}, and nothing says which value is white; make it "
            'I;16 (white is 65535) or L (255): image.convert("L"), or Image.fromarray of a uint8 or uint16 array'
        )
    return values, 65535


def orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF raises all kinds of things, and is no reason to refuse a picture
        return 1
