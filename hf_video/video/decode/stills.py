"""Videos that were never encoded: arrays, lists of images, folders of images, animated images of PIL."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from hf_video.errors import NotAVideoError, NoVideoStreamError, VideoArrayError, VideoError, VideoSourceError
from hf_video.video.decode.container import Media, media_from_path
from hf_video.video.frames.addresses import missing_path, natural_key
from hf_video.video.frames.pixels import WHITE
from hf_video.video.frames.rgb import array_of, array_to_rgb, array_to_uint8, image_to_rgb, orientation

if TYPE_CHECKING:
    import torch
    from PIL import Image

IMAGE_ENDINGS = (
    ".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2",
    ".avif",
)  # fmt: skip
DEFAULT_FPS = 25.0
# What browsers do: so short a delay was written where nobody meant it.
SHORTEST_DELAY, DELAY_INSTEAD = 0.010, 0.100  # seconds
WEBP_ANIMATED, WEBP_OPACITY = 0x02, 0x10  # flags of its VP8X chunk
# What Pillow raises for a file that it can't read.
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError)

DeliverPixels = Callable[[int, np.ndarray], None]


class Stills:
    """Frames that can be had one by one: `seconds` (float64) and `pixels(index)`, uint8 RGB (height, width, 3).

    Frame i is shown from i / fps seconds on; what was never encoded has no time of its own.
    """

    codec = "images"

    def __init__(self, count: int, fps: float, label: str, background: tuple[int, int, int] = WHITE):
        self.label = label
        self.background = background
        self.seconds = np.arange(count) / fps
        self.end = count / fps

    def pixels(self, index: int) -> np.ndarray:
        raise NotImplementedError

    def fetch(self, indices: list[int], deliver: DeliverPixels) -> None:
        for index in indices:
            deliver(index, self.pixels(index))

    def frames(self) -> Iterator[tuple[int, np.ndarray]]:
        for index in range(len(self.seconds)):
            yield index, self.pixels(index)

    def close(self) -> None:
        """Nothing stays open."""


class ArrayVideo(Stills):
    """An array or tensor of shape (frames, height, width, 3); (frames, 3, height, width) is taken where it can't be the
    other. Other dtypes than uint8, one channel, and a fourth (opacity) become RGB as `hf_video.video.frames.rgb`
    says."""

    codec = "array"

    def __init__(self, array: np.ndarray | torch.Tensor, fps: float, *, background: tuple[int, int, int] = WHITE):
        self._array = _channels_last(array)
        super().__init__(len(self._array), fps, f"the array of shape {tuple(array.shape)}", background)

    def pixels(self, index: int) -> np.ndarray:
        return array_to_rgb(self._array[index], background=self.background)


def _channels_last(array: np.ndarray | torch.Tensor) -> np.ndarray:
    actual = f"{array.dtype} of shape {tuple(array.shape)}"
    expected = "a video array must be uint8 of shape (frames, height, width, 3)"
    array = array_of(array)
    if array.ndim == 3 and array.shape[-1] == 3:
        raise VideoArrayError(f"{expected}, got one image, {actual}; add the frame dimension with array[None]")
    if array.ndim != 4:
        raise VideoArrayError(f"{expected}, got {actual}")
    channels = (1, 3, 4)
    if array.shape[3] in channels and array.shape[1] == 3:
        raise VideoArrayError(f"{expected}; {actual} could have its channels first or last, transpose or crop it")
    if array.shape[3] not in channels and array.shape[1] in channels:
        array = array.transpose(0, 2, 3, 1)
    if array.shape[3] not in channels:
        raise VideoArrayError(f"{expected}, got {actual}")
    if 0 in array.shape:
        raise VideoArrayError(f"{expected} with at least one frame and one pixel, got {actual}")
    return array_to_uint8(array)


class ImageList(Stills):
    """PIL images of one size (others are refused: which size would be meant?)."""

    def __init__(self, images: list[Image.Image], fps: float, *, background: tuple[int, int, int] = WHITE):
        one = len({id(image) for image in images}) == 1 < len(images)
        if one and getattr(images[0], "n_frames", 1) > 1:
            raise VideoArrayError(
                "the list holds one moving image again and again, which shows one frame: give the image itself, or "
                "copies, [frame.copy() for frame in ImageSequence.Iterator(image)]"
            )
        sizes = {upright_size(image) for image in images}
        if len(sizes) > 1:
            listed = ", ".join(f"{w}x{h}" for w, h in sorted(sizes)[:4])
            raise VideoArrayError(f"the images of a video must have one size, got {listed}; resize them first")
        self._images = list(images)
        super().__init__(len(images), fps, f"the list of {len(images)} images", background)

    def pixels(self, index: int) -> np.ndarray:
        try:
            return image_to_rgb(self._images[index], background=self.background)
        except VideoArrayError as error:
            raise VideoArrayError(f"image {index} of {self.label}: {error}") from None


class ImageFolder(Stills):
    """The images of a folder, in natural order of their names (2 before 10). The first one gives the size; another
    size later is an error that names the file."""

    def __init__(self, folder: str, fps: float, *, background: tuple[int, int, int] = WHITE):
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.name.lower().endswith(IMAGE_ENDINGS) and not entry.name.startswith(".") and not entry.is_dir()
            ]
        if not names:
            raise NoVideoStreamError(
                f"the folder {folder} has no images ({', '.join(IMAGE_ENDINGS)}); "
                "a video folder holds one image per frame"
            )
        self._paths = [os.path.join(folder, n) for n in sorted(names, key=natural_key)]
        super().__init__(len(names), fps, folder, background)
        self._size = self.pixels(0).shape[:2]

    def pixels(self, index: int) -> np.ndarray:
        pixels = read_image(self._paths[index], background=self.background)
        expected = getattr(self, "_size", pixels.shape[:2])
        if pixels.shape[:2] != expected:
            raise VideoArrayError(
                f"{self._paths[index]} has {pixels.shape[1]}x{pixels.shape[0]} pixels, the first image of the folder "
                f"{expected[1]}x{expected[0]}; the frames of a video must have one size"
            )
        return pixels


def read_image(path: str, *, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """An image file as uint8 RGB (height, width, 3); see `hf_video.video.frames.rgb`."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image_to_rgb(image, background=background)
    except VideoArrayError as error:
        raise VideoArrayError(f"{path}: {error}") from None
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        raise _no_image(path, error) from None


def _no_image(path: str, error: Exception) -> VideoError:
    if not os.path.exists(path):
        return missing_path(path)
    try:
        media_from_path(path).head()
    except VideoError as unreadable:  # empty, no image at all, or not allowed
        return unreadable
    return NotAVideoError(f"{path} can't be read as an image: {error}")


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of a PIL image after the orientation that its EXIF asks for."""
    width, height = image.size
    return (height, width) if orientation(image) > 4 else (width, height)


class AnimatedImage(Stills):
    """An image file that FFmpeg can't play as a browser does: animated webp and png, or a still one (a video of one
    frame). Frames have their own durations; one of 10 ms or less is shown for 100 ms."""

    def __init__(self, media: Media, fps: float, *, background: tuple[int, int, int] = WHITE):
        from PIL import Image

        self._media = media
        self._image = None
        self._file = None
        self._pid = None
        try:
            image = self._open()
            self.codec = (image.format or "images").lower()
            self._numbers = _shown_frames(image)
            durations, sizes = [], []
            for number in self._numbers:
                image.seek(number)
                image.load()
                # Pages of a TIFF and stills have no delay.
                stated = image.info.get("duration") if len(self._numbers) > 1 else None
                durations.append(1 / fps if stated is None else float(browser_delays(stated / 1000)))
                sizes.append(image.size)
        except (*UNREADABLE, Image.DecompressionBombError) as error:
            self.close()
            raise NotAVideoError(f"{media.label} can't be read as an image: {error}") from None
        if len(set(sizes)) > 1:
            self.close()
            listed = ", ".join(f"{w}x{h}" for w, h in sorted(set(sizes))[:4])
            raise VideoArrayError(f"the pages of {media.label} have several sizes ({listed}): they are no video")
        super().__init__(len(durations), fps, media.label, background)
        ends = np.cumsum(durations)
        self.seconds = ends - durations
        self.end = float(ends[-1])

    def _open(self) -> Any:
        from PIL import Image

        if self._image is None or self._pid != os.getpid():
            self._pid = os.getpid()
            self._file = _webp_with_opacity(self._media.stream())
            self._image = Image.open(self._file)
        return self._image

    def pixels(self, index: int) -> np.ndarray:
        number = self._numbers[index]
        if self._open().tell() > number:
            self.close()  # Pillow decodes from the start again, which fails for a PNG as FFmpeg writes it
        image = self._open()
        try:
            image.seek(number)
            return image_to_rgb(image, background=self.background)
        except VideoArrayError as error:
            raise VideoArrayError(f"{self.label}: {error}") from None
        except UNREADABLE as error:
            raise NotAVideoError(f"{self.label}: frame {index} can't be read: {error}") from None

    def close(self) -> None:
        image, file = self._image, self._file
        self._image = self._file = None
        if image is not None:
            image.close()
        if file is not None:
            file.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_image": None, "_file": None}


def _webp_with_opacity(file: BinaryIO) -> BinaryIO:
    """The file, or an animated WebP that says that it has opacity: parts that no frame covers are transparent also
    where no frame has any, and Pillow would make them black."""
    head = file.read(21)
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and head[20] & WEBP_ANIMATED:
        data = head[:20] + bytes([head[20] | WEBP_OPACITY]) + file.read()
        file.close()
        return io.BytesIO(data)
    file.seek(0)
    return file


def _shown_frames(image: Image.Image) -> list[int]:
    """The frames of an image file that are its animation, or its pages. A photograph in several pictures (MPO: a depth
    map, a larger preview) is its first one, and a PNG's picture for viewers that can't play it is not played."""
    count = getattr(image, "n_frames", 1)
    if image.format == "MPO":
        return [0]
    return list(range(1 if count > 1 and getattr(image, "default_image", False) else 0, count))


def browser_delays(seconds: np.ndarray | float) -> np.ndarray:
    """How long browsers show frames of an animation that ask for so many seconds."""
    return np.where(np.asarray(seconds) < SHORTEST_DELAY + 1e-6, DELAY_INSTEAD, seconds)


def images_from_list(items: list[Any], fps: float, *, background: tuple[int, int, int] = WHITE) -> Stills:
    """A list of PIL images, or of equally shaped arrays (height, width, 3) or (height, width)."""
    if not items:
        raise VideoArrayError("an empty list is not a video; give at least one image")
    if all(hasattr(item, "convert") and hasattr(item, "size") for item in items):
        return ImageList(items, fps, background=background)
    if all(hasattr(item, "shape") and hasattr(item, "dtype") for item in items):
        arrays = [array_of(item) for item in items]
        if len({a.shape for a in arrays}) == 1:
            stacked = np.stack(arrays)
            return ArrayVideo(stacked[..., None] if stacked.ndim == 3 else stacked, fps, background=background)
        raise VideoArrayError("the arrays of a list must have one shape (height, width, 3)")
    kinds = ", ".join(sorted({type(item).__name__ for item in items}))
    raise VideoSourceError(f"a list is a video if it holds PIL images or arrays of pixels, got {kinds}")
