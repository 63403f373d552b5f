"""Videos that were never encoded: arrays, lists of images, folders of images, animated images of PIL."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hf_video.errors import EmptyFileError, NotAVideoError, NoVideoStreamError, VideoArrayError, VideoSourceError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
DEFAULT_FPS = 25.0

DeliverPixels = Callable[[int, np.ndarray], None]


class Stills:
    """Frames that can be had one by one: `seconds` (float64) and `pixels(index)`, uint8 RGB (height, width, 3).

    Frame i is shown from i / fps seconds on; what was never encoded has no time of its own.
    """

    codec = "images"

    def __init__(self, count: int, fps: float, label: str):
        self.label = label
        self.seconds = np.arange(count) / fps
        self.end = count / fps

    def pixels(self, index: int) -> np.ndarray:
        raise NotImplementedError

    def fetch(self, wanted: list[int], deliver: DeliverPixels) -> None:
        for index in wanted:
            deliver(index, self.pixels(index))

    def frames(self) -> Iterator[tuple[int, np.ndarray]]:
        for index in range(len(self.seconds)):
            yield index, self.pixels(index)

    def close(self) -> None:
        """Nothing stays open."""


class ArrayVideo(Stills):
    """A uint8 array or tensor of shape (frames, height, width, 3); (frames, 3, height, width) is taken where it can't
    be the other; one channel, or a fourth (opacity), is made RGB."""

    codec = "array"

    def __init__(self, array: Any, fps: float):
        self._array = _channels_last(array)
        super().__init__(len(self._array), fps, f"the array of shape {tuple(array.shape)}")

    def pixels(self, index: int) -> np.ndarray:
        frame = self._array[index]
        return frame[..., :3] if frame.shape[-1] >= 3 else np.repeat(frame, 3, axis=-1)


def _channels_last(array: Any) -> np.ndarray:
    given = f"{array.dtype} of shape {tuple(array.shape)}"
    wanted = "a video array must be uint8 of shape (frames, height, width, 3)"
    if hasattr(array, "detach"):
        array = array.detach().cpu().numpy() if str(array.dtype) == "torch.uint8" else array
    if str(array.dtype) != "uint8":
        raise VideoArrayError(f"{wanted}, got {given}; scale values to 0..255 and convert them first")
    if array.ndim == 3 and array.shape[-1] == 3:
        raise VideoArrayError(f"{wanted}, got one image, {given}; add the frame dimension with array[None]")
    if array.ndim != 4:
        raise VideoArrayError(f"{wanted}, got {given}")
    channels = (1, 3, 4)
    if array.shape[3] in channels and array.shape[1] == 3:
        raise VideoArrayError(f"{wanted}; {given} could have its channels first or last, transpose or crop it")
    if array.shape[3] not in channels and array.shape[1] in channels:
        array = array.transpose(0, 2, 3, 1)
    if array.shape[3] not in channels:
        raise VideoArrayError(f"{wanted}, got {given}")
    if 0 in array.shape:
        raise VideoArrayError(f"{wanted} with at least one frame and one pixel, got {given}")
    return array


class ImageList(Stills):
    """PIL images of one size (others are refused: which size would be meant?)."""

    def __init__(self, images: list[Any], fps: float):
        sizes = {image.size for image in images}
        if len(sizes) > 1:
            listed = ", ".join(f"{w}x{h}" for w, h in sorted(sizes)[:4])
            raise VideoArrayError(f"the images of a video must have one size, got {listed}; resize them first")
        self._images = list(images)
        super().__init__(len(images), fps, f"the list of {len(images)} images")

    def pixels(self, index: int) -> np.ndarray:
        return np.asarray(self._images[index].convert("RGB"))


class ImageFolder(Stills):
    """The images of a folder, in natural order of their names (2 before 10). The first one gives the size; another
    size later is an error that names the file."""

    def __init__(self, folder: str, fps: float):
        names = [n for n in os.listdir(folder) if n.lower().endswith(IMAGE_ENDINGS) and not n.startswith(".")]
        if not names:
            raise NoVideoStreamError(
                f"the folder {folder} has no images ({', '.join(IMAGE_ENDINGS)}); "
                "a video folder holds one image per frame"
            )
        self._paths = [os.path.join(folder, n) for n in sorted(names, key=natural_key)]
        super().__init__(len(names), fps, folder)
        self._size = self.pixels(0).shape[:2]

    def pixels(self, index: int) -> np.ndarray:
        pixels = read_image(self._paths[index])
        expected = getattr(self, "_size", pixels.shape[:2])
        if pixels.shape[:2] != expected:
            raise VideoArrayError(
                f"{self._paths[index]} has {pixels.shape[1]}x{pixels.shape[0]} pixels, the first image of the folder "
                f"{expected[1]}x{expected[0]}; the frames of a video must have one size"
            )
        return pixels


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts numbers within names by value: frame2 before frame10."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(p), p) if p[0].isdecimal() else (1, 0, p.lower()) for p in parts]


def read_image(path: str) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            raise EmptyFileError(f"{path} is empty (0 bytes)") from None
        raise NotAVideoError(f"{path} can't be read as an image: {error}") from None


class AnimatedImage(Stills):
    """An image file that FFmpeg can't play: animated webp, or a still one (a video of one frame). Its frames have
    their own durations."""

    def __init__(self, media: Any, fps: float):
        from PIL import Image

        self._media = media
        self._image = None
        self._file = None
        self._pid = None
        try:
            image = self._open()
            self.codec = (image.format or "images").lower()
            durations = []
            for index in range(getattr(image, "n_frames", 1)):
                image.seek(index)
                image.load()
                durations.append((image.info.get("duration") or 1000 / fps) / 1000)
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            self.close()
            raise NotAVideoError(f"{media.label} can't be read as an image: {error}") from None
        super().__init__(len(durations), fps, media.label)
        ends = np.cumsum(durations)
        self.seconds = ends - durations
        self.end = float(ends[-1])

    def _open(self) -> Any:
        from PIL import Image

        if self._image is None or self._pid != os.getpid():
            self._pid = os.getpid()
            self._file = self._media.stream()
            self._image = Image.open(self._file)
        return self._image

    def pixels(self, index: int) -> np.ndarray:
        image = self._open()
        image.seek(index)
        return np.asarray(image.convert("RGB"))

    def close(self) -> None:
        image, file = self._image, self._file
        self._image = self._file = None
        if image is not None:
            image.close()
        if file is not None:
            file.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_image": None, "_file": None}


def images_from_list(items: list[Any], fps: float) -> Stills:
    """A list of PIL images, or of equally shaped uint8 arrays (height, width, 3)."""
    if not items:
        raise VideoArrayError("an empty list is not a video; give at least one image")
    if all(hasattr(item, "convert") and hasattr(item, "size") for item in items):
        return ImageList(items, fps)
    if all(hasattr(item, "shape") and hasattr(item, "dtype") for item in items):
        arrays = [item.detach().cpu().numpy() if hasattr(item, "detach") else item for item in items]
        if len({a.shape for a in arrays}) == 1:
            return ArrayVideo(np.stack(arrays), fps)
        raise VideoArrayError("the arrays of a list must have one shape (height, width, 3)")
    kinds = ", ".join(sorted({type(item).__name__ for item in items}))
    raise VideoSourceError(f"a list is a video if it holds PIL images or uint8 arrays, got {kinds}")
