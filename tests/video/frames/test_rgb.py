"""Pictures of every kind are the same 8-bit RGB on every way in."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps, features

from hf_video.errors import VideoArrayError, VideoOptionError
from hf_video.models.videomae.image_processing_videomae import VideoMAEImageProcessor
from hf_video.video import VideoReader, write_video
from hf_video.video.frames.rgb import array_to_rgb, array_to_uint8, image_to_rgb
from hf_video.video.inputs import MemoryVideo

HEIGHT, WIDTH = 20, 30
GREY = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
EXPECTED = np.repeat(np.rint(GREY / 257).astype(np.uint8)[..., None], 3, axis=-1)
COLOUR = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def opened(data: bytes) -> Image.Image:
    """With its bytes, which Pillow lets go of as it loads them."""
    image = Image.open(io.BytesIO(data))
    image.info["bytes"] = data
    return image


def saved(image: Image.Image, form: str, **options) -> Image.Image:
    file = io.BytesIO()
    image.save(file, form, **options)
    return opened(file.getvalue())


def tiff(values: np.ndarray, *, bits: int, photometric: int = 1, sample_format: int = 1) -> bytes:
    """An uncompressed grey TIFF written by hand: Pillow writes few of the kinds that there are."""
    data = values.tobytes()
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(np.uint32)
        packed = pairs[:, 0] << 12 | pairs[:, 1]
        data = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1).astype(np.uint8).tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(data),
            339: sample_format}  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


DEEP = {
    "I;16": lambda: Image.fromarray(GREY),
    "I;16B": lambda: Image.fromarray(GREY.astype(">u2")),
    "I": lambda: Image.fromarray(GREY.astype(np.int32)),
    "F": lambda: Image.fromarray((GREY / 65535).astype(np.float32)),
    "png": lambda: saved(Image.fromarray(GREY), "PNG"),
    "pgm": lambda: saved(Image.fromarray(GREY), "PPM"),
    "jpeg 2000": lambda: saved(Image.fromarray(GREY), "JPEG2000"),
    "tiff": lambda: saved(Image.fromarray(GREY), "TIFF", compression="tiff_lzw"),
    "float tiff": lambda: saved(Image.fromarray((GREY / 65535).astype(np.float32)), "TIFF"),
    "12 bits": lambda: opened(tiff(GREY // 16, bits=12)),
    "32 bits": lambda: opened(tiff(GREY.astype(np.uint32) * 65537, bits=32)),
    "white is zero": lambda: opened(tiff(65535 - GREY, bits=16, photometric=0)),
}


@pytest.mark.parametrize("kind", DEEP)
def test_grey_of_more_than_8_bits_on_every_way_in(kind, tmp_path):
    image = DEEP[kind]()
    expected, most = EXPECTED, 1 if kind in ("12 bits", "jpeg 2000", "pgm") else 0  # FFmpeg cuts off

    def near(pixels) -> bool:
        return np.abs(np.asarray(pixels).astype(int) - expected).max() <= most

    assert near(image_to_rgb(image))
    assert near(VideoReader([image, image]).get_frames([1]).data[0])
    assert near(MemoryVideo([image]).get_frames([0]).data[0])
    processor = VideoMAEImageProcessor(do_resize=False, do_center_crop=False, do_rescale=False, do_normalize=False)
    assert near(processor([image], return_tensors="pt")["pixel_values"][0, 0].permute(1, 2, 0))
    written = write_video(tmp_path / "a.mkv", [image], 10, "ffv1")
    assert near(VideoReader(written).get_frames([0]).data[0])
    ending = {"JPEG2000": "jp2"}.get(image.format, "tif" if image.mode == "F" else "png")
    path = tmp_path / "folder" / f"0.{ending}"
    path.parent.mkdir()
    if image.format is None and image.mode != "I":
        image.save(path)
    elif image.format is not None:
        path.write_bytes(image.info["bytes"])
    if path.exists():
        assert near(VideoReader(path.parent).get_frames([0]).data[0])
        assert near(VideoReader(path).get_frames([0]).data[0])
        assert near(VideoReader(path.read_bytes()).get_frames([0]).data[0])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(np.full((4, 4), 200, np.int32)), "mode I"),
        (Image.fromarray(np.full((4, 4), 70000, np.int32)), "mode I"),
        (Image.fromarray(np.full((4, 4), 254, np.float32)), "mode F"),
        (Image.fromarray(np.full((4, 4), np.nan, np.float32)), "mode F"),
    ],
)
def test_where_white_is_not_known_nothing_is_guessed(image, message):
    for way in (image_to_rgb, lambda i: VideoReader([i]).get_frames([0]), lambda i: VideoMAEImageProcessor()([i])):
        with pytest.raises(VideoArrayError, match=message):
            way(image)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"])
def test_modes_without_opacity(mode):
    plain = Image.fromarray(COLOUR)
    if mode == "LAB":
        spaces = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.applyTransform(plain, ImageCms.buildTransform(*spaces, "RGB", "LAB"))
        assert np.abs(image_to_rgb(image).astype(int) - COLOUR).mean() < 2
    else:
        image = plain.convert(mode)
        assert np.array_equal(image_to_rgb(image), np.asarray(image.convert("RGB")))


SHARE = np.linspace(0, 255, HEIGHT * WIDTH).astype(np.uint8).reshape(HEIGHT, WIDTH)


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (10, 200, 30)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa", "La", "PA", "P", "palette of RGBA", "colour key"])
def test_what_is_transparent_shows_the_background(mode, background):
    full = Image.fromarray(np.dstack([COLOUR, SHARE]))
    if mode == "P":
        image = Image.fromarray(COLOUR).quantize(16)
        image.info["transparency"] = 3
        colour, share = np.asarray(image.convert("RGB")), np.where(np.asarray(image) == 3, 0, 255)
    elif mode == "colour key":
        image = saved(Image.fromarray(COLOUR), "PNG", transparency=tuple(COLOUR[0, 0].tolist()))
        colour, share = COLOUR, np.where((COLOUR[0, 0] == COLOUR).all(-1), 0, 255)
    else:
        steps = {"La": ["LA", "La"], "PA": ["RGB", "P"], "palette of RGBA": []}.get(mode, [mode])
        image = full
        for step in steps:
            image = image.convert(step)
        if mode == "PA":
            image.putalpha(Image.fromarray(SHARE))
        image = full.quantize(64, Image.Quantize.FASTOCTREE) if mode == "palette of RGBA" else image
        back = {"La": "LA", "RGBa": "RGBA"}.get(mode, image.mode)
        rgba = np.asarray((image if back == image.mode else image.convert(back)).convert("RGBA"))
        colour, share = rgba[..., :3], rgba[..., 3]
        assert share.min() < 5
    share = share[..., None] / 255
    expected = colour * share + np.array(background) * (1 - share)
    assert np.abs(image_to_rgb(image, background=background) - expected).max() <= 0.51


def test_the_transparent_colour_of_16_bits():
    deep = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)),
        (b"tRNS", deep[3, 4].astype(">u2").tobytes()),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    expected = (deep / 257).round()
    expected[3, 4] = 10, 20, 30
    assert np.abs(VideoReader(png, background=(10, 20, 30)).get_frames([0]).data[0] - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(orientation, tmp_path):
    exif = Image.Exif()
    exif[274] = orientation
    for ending in ("png", "webp", "tif"):
        path = tmp_path / ending / f"0.{ending}"
        path.parent.mkdir()
        Image.fromarray(COLOUR).save(path, exif=exif, **({"lossless": True} if ending == "webp" else {}))
        with Image.open(path) as image:
            expected = np.asarray(ImageOps.exif_transpose(image))
            assert np.array_equal(image_to_rgb(image), expected)
            assert np.array_equal(image_to_rgb(ImageOps.exif_transpose(image)), expected)
        for source in (path, path.parent, [Image.open(path), Image.open(path)]):
            with VideoReader(source) as reader:
                assert (reader.metadata.height, reader.metadata.width) == expected.shape[:2]
                assert np.array_equal(reader.get_frames([0]).data[0], expected)
    deep, plain = Image.fromarray(GREY), Image.fromarray(EXPECTED)
    deep.info["exif"] = plain.info["exif"] = exif.tobytes()
    assert np.array_equal(image_to_rgb(deep), np.asarray(ImageOps.exif_transpose(plain)))


def test_a_list_of_photographs_of_one_upright_size():
    turned, plain = Image.Exif(), Image.fromarray(COLOUR.swapaxes(0, 1).copy())
    turned[274] = 6
    photo = saved(Image.fromarray(COLOUR), "PNG", exif=turned)
    assert VideoReader([photo, plain]).get_frames([0, 1]).data.shape == (2, WIDTH, HEIGHT, 3)
    with pytest.raises(VideoArrayError, match="one size"):
        VideoReader([photo, Image.fromarray(COLOUR)])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_is_no_reason_to_refuse():
    image = Image.fromarray(COLOUR)
    image.info["exif"] = b"Exif\0\0II*\0\xff\xff\xff\xff"
    assert np.array_equal(image_to_rgb(image), COLOUR)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([0, 32768, 65535], np.uint16), [0, 128, 255]),
        (np.array([0, 32768, 65535], ">u2"), [0, 128, 255]),
        (np.array([0, 100, 255], np.uint16), [0, 100, 255]),
        (np.array([0, 0.5, 1], np.float16), [0, 128, 255]),
        (np.array([0, 0.5, 1], np.float64), [0, 128, 255]),
        (np.array([False, True]), [0, 255]),
        (np.array([0, 7, 255], np.int64), [0, 7, 255]),
        (np.array([0, 7, 255], np.uint32), [0, 7, 255]),
    ],
)
def test_dtypes(array, expected):
    assert array_to_uint8(array).tolist() == expected
    frames = np.tile(array[:, None, None, None], (1, 8, 8, 3))
    with VideoReader(frames) as reader:
        assert reader.get_frames(range(len(array))).data[:, 0, 0, 0].tolist() == expected
    if array.dtype.byteorder != ">":
        with VideoReader(torch.from_numpy(frames)) as reader:
            assert reader.get_frames(range(len(array))).data[:, 0, 0, 0].tolist() == expected
    processor = VideoMAEImageProcessor(do_resize=False, do_center_crop=False, do_normalize=False)
    for given in (frames, *([torch.from_numpy(frames)] if array.dtype.byteorder != ">" else [])):
        got = processor(given, return_tensors="pt")["pixel_values"][0, :, 0, 0, 0] * 255
        assert got.tolist() == pytest.approx(expected, abs=0.51)


@pytest.mark.parametrize(
    "array",
    [
        np.array([300]),
        np.array([-1]),
        np.array([1.5]),
        np.array([np.nan]),
        np.array([70000], np.uint32),
        np.array(["a"]),
    ],
)
def test_values_that_are_no_pixels(array):
    with pytest.raises(VideoArrayError, match="uint8"):
        array_to_uint8(array)


def test_channels():
    grey, share = COLOUR[..., :1], SHARE[..., None]
    assert np.array_equal(array_to_rgb(grey), np.repeat(grey, 3, -1))
    both = array_to_rgb(np.concatenate([grey, share], -1))
    assert np.array_equal(both, image_to_rgb(Image.fromarray(np.concatenate([grey, share], -1), "LA")))
    with pytest.raises(VideoArrayError, match="5 channels"):
        array_to_rgb(np.zeros((2, 2, 5), np.uint8))


def test_a_writer_never_changes_what_white_is(tmp_path):
    dark, light = np.full((8, 8, 3), 9, np.uint16), np.full((8, 8, 3), 60000, np.uint16)
    with VideoReader(write_video(tmp_path / "a.mkv", np.stack([dark, light]), 10, "ffv1")) as reader:
        assert reader.get_frames([0, 1]).data[:, 0, 0, 0].tolist() == [0, 233]
    with VideoReader(write_video(tmp_path / "a.mkv", iter([light, dark]), 10, "ffv1")) as reader:
        assert reader.get_frames([0, 1]).data[:, 0, 0, 0].tolist() == [233, 0]
    with pytest.raises(VideoArrayError, match="Frame 1 is uint16 beyond 255"):
        write_video(tmp_path / "a.mkv", iter([dark, light]), 10, "ffv1")


# --- animations ------------------------------------------------------------------------------------------------------


def moving(path, *, delay=50, **options):
    """Three frames: a square that moves over nothing."""
    images = []
    for x in (0, 10, 20):
        pixels = np.zeros((16, 32, 4), np.uint8)
        pixels[4:12, x : x + 8] = 200, 40, 10, 255
        images.append(Image.fromarray(pixels))
    images[0].save(path, save_all=True, append_images=images[1:], duration=delay, disposal=2, loop=0, **options)
    return path, np.stack([np.asarray(image) for image in images])


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
@pytest.mark.parametrize("background", [None, "black", (0, 90, 200)])
def test_animations_lie_on_one_background(ending, background, tmp_path):
    path, rgba = moving(tmp_path / f"a.{ending}", **({"lossless": True} if ending == "webp" else {}))
    colour = {None: (255, 255, 255), "black": (0, 0, 0)}.get(background, background)
    expected = np.where(rgba[..., 3:] > 0, rgba[..., :3], np.array(colour))
    with VideoReader(path, **({} if background is None else {"background": background})) as reader:
        assert np.array_equal(reader.get_frames([2, 0, 1]).data, expected[[2, 0, 1]])
        assert np.array_equal(np.concatenate([f.data for f in reader]), expected)


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
@pytest.mark.parametrize(("delay", "shown"), [(0, 0.1), (10, 0.1), (20, 0.02), (130, 0.13)])
def test_delays_are_those_of_browsers(ending, delay, shown, tmp_path):
    path, _ = moving(tmp_path / f"a.{ending}", delay=delay)
    with VideoReader(path) as reader:
        assert reader.timestamps == pytest.approx([0, shown, 2 * shown], abs=1e-3)
        assert reader.metadata.duration == pytest.approx(3 * shown, abs=1e-3)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_with_opacity(tmp_path):
    images = [Image.new("RGBA", (32, 16), (200, 40, 10, 255)) for _ in range(3)]
    for number, image in enumerate(images):
        image.paste((0, 0, 0, 0), (0, 0, 8 * (number + 1), 16))
    images[0].save(tmp_path / "a.avif", save_all=True, append_images=images[1:], duration=[5, 50, 80], quality=95)
    images[2].save(tmp_path / "still.avif", quality=95)
    with VideoReader(tmp_path / "a.avif", background=(0, 0, 250)) as reader:
        assert reader.timestamps == pytest.approx([0, 0.1, 0.15])
        frames = reader.get_frames([0, 1, 2]).data
        for number, frame in enumerate(frames):
            assert np.abs(frame[:, : 8 * (number + 1) - 2].astype(int) - (0, 0, 250)).max() < 9
            assert np.abs(frame[:, 8 * (number + 1) + 2 :].astype(int) - (200, 40, 10)).max() < 9
    with VideoReader(tmp_path / "still.avif") as reader:
        assert np.abs(reader.get_frames([0]).data[0, :, :20].astype(int) - 255).max() < 9


def test_targa_and_jpeg_2000(tmp_path):
    Image.fromarray(np.dstack([COLOUR, SHARE])).save(tmp_path / "a.tga")
    Image.fromarray(COLOUR).save(tmp_path / "a.jp2", irreversible=False)
    assert np.array_equal(VideoReader(tmp_path / "a.jp2").get_frames([0]).data[0], COLOUR)
    expected = image_to_rgb(Image.fromarray(np.dstack([COLOUR, SHARE])), background=(9, 9, 9))
    assert np.array_equal(VideoReader(tmp_path / "a.tga", background=(9, 9, 9)).get_frames([0]).data[0], expected)


def test_what_is_not_part_of_the_animation(tmp_path):
    """A PNG's picture for viewers that can't play it, and the further pictures of a photograph (MPO)."""
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (10, 90, 200)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], default_image=True, duration=50)
    with VideoReader(tmp_path / "a.png") as reader:
        assert reader.get_frames(range(len(reader))).data[:, 0, 0, 0].tolist() == [90, 200]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[frames[1].resize((4, 4))])
    with VideoReader(tmp_path / "a.jpg") as reader:
        assert len(reader) == 1
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=[frames[1].resize((4, 4))])
    with pytest.raises(VideoArrayError, match="several sizes"):
        VideoReader(tmp_path / "a.tif")


@pytest.mark.parametrize("background", [(1, 2), (0, 0, 256), "no colour", 3, (0.5, 0, 0)])
def test_backgrounds_without_meaning(background):
    with pytest.raises(VideoOptionError, match="background"):
        VideoReader(COLOUR[None], background=background)
