"""Draws the pictures of decode.rs: one line each of name, height, width, tolerance, file and expected RGB in hexadecimal.

    python make-pictures.py > pictures.txt        # needs numpy and Pillow < 13

What is expected is computed here, from the drawing or by Pillow: transparency on white by `Image.paste`, orientation by
`ImageOps.exif_transpose`, the high byte of longer samples. JPEG decoders may differ by a few levels, so that lossy
pictures come with a tolerance; everything else must be equal.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

HEIGHT, WIDTH = 7, 9
rng = np.random.default_rng(20)
rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
RGB = np.stack([columns * 31, rows * 42, (columns + rows) * 17], axis=-1).astype(np.uint8)
ALPHA = ((columns * 23 + rows * 37) % 256).astype(np.uint8)
ALPHA[0], ALPHA[1] = 0, 255
RGBA = np.dstack([RGB, ALPHA])
GRAY = RGB[..., 0]
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def line(name, data, rgb, tolerance=0):
    height, width = rgb.shape[:2]
    print(name, height, width, tolerance, data.hex(), np.ascontiguousarray(rgb).astype(np.uint8).tobytes().hex())


def on_white(picture):
    """As qwen-vl-utils does it, but for every kind of transparency."""
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        ground = Image.new("RGB", picture.size, (255, 255, 255))
        ground.paste(picture, mask=picture.split()[3])
        return np.array(ground)
    return np.array(picture.convert("RGB"))


def pillow(name, kind, picture, tolerance=0, **options):
    """A picture that Pillow writes and reads again."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    upright = ImageOps.exif_transpose(Image.open(buffer))
    line(name, buffer.getvalue(), on_white(upright), tolerance)


def gray3(values):
    return np.repeat(values[..., None], 3, axis=-1)


def blend(colors, alpha):
    """`BLEND` of Pillow on white."""
    alpha = alpha.astype(np.uint32)[..., None]
    value = 255 * (255 - alpha) + colors.astype(np.uint32) * alpha + 128
    return ((value >> 8) + value) >> 8


def pack(values, bits):
    """Rows of samples of less than a byte, each row padded to whole bytes."""
    places = np.arange(bits - 1, -1, -1)
    return [np.packbits(((row[:, None] >> places) & 1).astype(np.uint8).ravel()).tobytes() for row in values]


def pillow_pictures():
    rgb, rgba, gray = Image.fromarray(RGB), Image.fromarray(RGBA), Image.fromarray(GRAY)
    gray_alpha = Image.fromarray(np.dstack([GRAY, ALPHA]), "LA")
    for kind in ("PNG", "BMP", "TIFF"):
        pillow(f"rgb.{kind}", kind, rgb)
        pillow(f"gray.{kind}", kind, gray)
        pillow(f"one_bit.{kind}", kind, gray.convert("1"))
        pillow(f"palette.{kind}", kind, rgb.quantize(40))
    for kind in ("PNG", "TIFF"):
        pillow(f"rgba.{kind}", kind, rgba)
        pillow(f"gray_alpha.{kind}", kind, gray_alpha)
    for bits in (1, 2, 4):
        pillow(f"palette_{bits}_bits.PNG", "PNG", rgb.quantize(1 << bits), bits=bits)
    pillow("palette_transparent.PNG", "PNG", rgb.quantize(40), transparency=bytes([0, 10, 128, 200, 255]))
    pillow("rgb_transparent.PNG", "PNG", rgb, transparency=tuple(int(v) for v in RGB[3, 3]))
    pillow("gray_transparent.PNG", "PNG", gray, transparency=int(GRAY[3, 3]))
    pillow("animated.PNG", "PNG", rgb, save_all=True, append_images=[Image.fromarray(255 - RGB)])

    pillow("lossless.WEBP", "WEBP", rgb, lossless=True)
    pillow("lossless_alpha.WEBP", "WEBP", rgba, lossless=True, exact=True)
    pillow("lossy.WEBP", "WEBP", rgb)
    pillow("lossy_alpha.WEBP", "WEBP", rgba)
    pillow("animated.WEBP", "WEBP", rgb, save_all=True, append_images=[Image.fromarray(255 - RGB)], lossless=True)

    pillow("baseline.JPEG", "JPEG", rgb, 4, quality=90, subsampling=0)
    pillow("subsampled.JPEG", "JPEG", rgb, 4, quality=90, subsampling=2)
    pillow("progressive.JPEG", "JPEG", rgb, 4, quality=90, progressive=True)
    pillow("restarts.JPEG", "JPEG", rgb, 4, quality=90, restart_marker_blocks=1)
    pillow("gray.JPEG", "JPEG", gray, 4)
    pillow("cmyk.JPEG", "JPEG", rgb.convert("CMYK"), 4, quality=95, subsampling=0)

    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        pillow(f"{compression}.TIFF", "TIFF", rgba, compression=compression)
    pillow("jpeg.TIFF", "TIFF", rgb, 4, compression="jpeg", quality=95)
    pillow("group4.TIFF", "TIFF", gray.convert("1"), compression="group4")
    pillow("cmyk.TIFF", "TIFF", Image.fromarray(RGBA, "CMYK"))

    for value in range(1, 10):
        exif = Image.Exif()
        exif[274] = value
        pillow(f"orientation_{value}.PNG", "PNG", rgb, exif=exif)
    for kind, options in (("JPEG", {"quality": 95, "subsampling": 0}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        exif = Image.Exif()
        exif[274] = 6
        pillow(f"orientation_6.{kind}", kind, rgb, 4 if kind == "JPEG" else 0, exif=exif, **options)
    pillow("xmp.JPEG", "JPEG", rgb, 4, quality=95, subsampling=0, xmp=XMP)
    pillow("xmp.WEBP", "WEBP", rgb, lossless=True, xmp=XMP)
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    pillow("xmp.PNG", "PNG", rgb, pnginfo=text)


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(name, raw_rows, bits, color_type, rgb, tail=b""):
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, color_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in raw_rows))
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + tail + png_chunk(b"IEND", b"")
    line(name, b"\x89PNG\r\n\x1a\n" + chunks, rgb)


def png_pictures():
    """What Pillow does not write, or reads in another way than we want."""
    for bits in (1, 2, 4):
        values = rng.integers(0, 1 << bits, (HEIGHT, WIDTH))
        png(f"gray_{bits}_bits.PNG", pack(values, bits), bits, 0, gray3(values * (255 // ((1 << bits) - 1))))
    kinds = (("gray", 0, 1), ("gray_alpha", 4, 2), ("rgb", 2, 3), ("rgba", 6, 4))
    for name, color_type, samples in kinds:
        values = rng.integers(0, 65536, (HEIGHT, WIDTH, samples))
        high = values >> 8
        colors = high[..., :3] if samples > 2 else gray3(high[..., 0])
        rgb = blend(colors, high[..., -1]) if samples in (2, 4) else colors
        png(f"{name}_16_bits.PNG", [row.astype(">u2").tobytes() for row in values], 16, color_type, rgb)
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    late = png_chunk(b"eXIf", exif)
    png("late_exif.PNG", [row.tobytes() for row in RGB], 8, 2, np.rot90(RGB, -1), late)


def tiff(name, strips, tags, rgb, order="<"):
    body, offsets = b"", []
    for strip in strips:
        offsets.append(8 + len(body))
        body += strip
    body += b"\0" * (len(body) % 2)
    tags = tags | {256: (3, [WIDTH]), 257: (3, [HEIGHT]), 273: (4, offsets), 279: (4, [len(s) for s in strips])}
    directory = 8 + len(body)
    outside = directory + 2 + 12 * len(tags) + 4
    entries, extra = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        data = b"".join(struct.pack(order + {3: "H", 4: "I"}[kind], int(value)) for value in values)
        if len(data) > 4:
            where = outside + len(extra)
            extra += data + b"\0" * (len(data) % 2)
            data = struct.pack(order + "I", where)
        entries += struct.pack(order + "HHI", tag, kind, len(values)) + data.ljust(4, b"\0")
    header = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, directory)
    line(name, header + body + struct.pack(order + "H", len(tags)) + entries + b"\0" * 4 + extra, rgb)


def tiff_tags(bits, photometric, samples, **more):
    tags = {258: (3, [bits] * samples), 259: (3, [1]), 262: (3, [photometric]), 277: (3, [samples]), 278: (3, [HEIGHT])}
    return tags | {int(tag.removeprefix("t")): value for tag, value in more.items()}


def tiff_pictures():
    gray16 = rng.integers(0, 65536, (HEIGHT, WIDTH))
    rgb16 = rng.integers(0, 65536, (HEIGHT, WIDTH, 3))
    for order, name in (("<", "intel"), (">", "motorola")):
        def data(values, kind="u2"):
            return values.astype(order + kind).tobytes()

        tiff(f"gray_16_bits_{name}.TIFF", [data(gray16)], tiff_tags(16, 1, 1), gray3(gray16 >> 8), order)
        tiff(f"white_is_zero_16_bits_{name}.TIFF", [data(gray16)], tiff_tags(16, 0, 1), gray3(255 - (gray16 >> 8)), order)
        tiff(f"gray_32_bits_{name}.TIFF", [data(gray16 << 16, "u4")], tiff_tags(32, 1, 1), gray3(gray16 >> 8), order)
        tiff(f"rgb_16_bits_{name}.TIFF", [data(rgb16)], tiff_tags(16, 2, 3), rgb16 >> 8, order)
        planes = [data(rgb16[..., band]) for band in range(3)]
        tiff(f"planes_16_bits_{name}.TIFF", planes, tiff_tags(16, 2, 3, t284=(3, [2])), rgb16 >> 8, order)
        for bits in (1, 2, 4, 8):
            values = rng.integers(0, 1 << bits, (HEIGHT, WIDTH))
            raw = [b"".join(pack(values, bits))]
            scaled = values * (255 // ((1 << bits) - 1))
            tiff(f"gray_{bits}_bits_{name}.TIFF", raw, tiff_tags(bits, 1, 1), gray3(scaled), order)
            tiff(f"white_is_zero_{bits}_bits_{name}.TIFF", raw, tiff_tags(bits, 0, 1), gray3(255 - scaled), order)
            table = rng.integers(0, 65536, (3, 1 << bits))
            colors = np.stack([channel[values] >> 8 for channel in table], axis=-1)
            tags = tiff_tags(bits, 3, 1, t320=(3, table.ravel()))
            if bits < 8:
                tiff(f"palette_{bits}_bits_{name}.TIFF", raw, tags, colors, order)
    strips = [RGB[top : top + 3].tobytes() for top in range(0, HEIGHT, 3)]
    tiff("strips.TIFF", strips, tiff_tags(8, 2, 3) | {278: (3, [3])}, RGB)
    planes = [RGBA[..., band].tobytes() for band in range(4)]
    tiff("alpha_planes.TIFF", planes, tiff_tags(8, 2, 4, t284=(3, [2]), t338=(3, [2])), blend(RGB, ALPHA))
    premultiplied = np.dstack([RGB.astype(np.uint32) * ALPHA[..., None] // 255, ALPHA]).astype(np.uint8)
    white = on_white(Image.fromarray(premultiplied, "RGBa").convert("RGBA"))
    tiff("premultiplied.TIFF", [premultiplied.tobytes()], tiff_tags(8, 2, 4, t338=(3, [1])), white)


def bmp(name, bits, compression, data, rgb, height=HEIGHT, palette=b"", masks=b""):
    offset = 54 + len(masks) + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, WIDTH, height, 1, bits, compression, len(data), 0, 0, len(palette) // 4, 0)
    file = struct.pack("<IHHI", offset + len(data), 0, 0, offset)
    line(name, b"BM" + file + header + masks + palette + data, rgb, 1 if bits == 16 else 0)


def bmp_rows(values):
    return b"".join(row.tobytes() + b"\0" * (-len(row.tobytes()) % 4) for row in values)


def bmp_pictures():
    bgr = RGB[..., ::-1]
    bmp("top_down.BMP", 24, 0, bmp_rows(bgr), RGB, height=-HEIGHT)
    bmp("unused_byte.BMP", 32, 0, bmp_rows(np.dstack([bgr, ALPHA])[::-1]), RGB)
    red, green, blue = (RGB[..., band].astype(np.uint16) for band in range(3))
    packed = (red >> 3) << 11 | (green >> 2) << 5 | blue >> 3
    expected = np.stack([(red >> 3) * 255 // 31, (green >> 2) * 255 // 63, (blue >> 3) * 255 // 31], axis=-1)
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    bmp("565.BMP", 16, 3, bmp_rows(packed.astype("<u2")[::-1]), expected, masks=masks)
    indices = rng.integers(0, 16, (HEIGHT, WIDTH))
    colors = rng.integers(0, 256, (16, 3)).astype(np.uint8)
    palette = np.dstack([colors[:, ::-1].reshape(1, 16, 3), np.zeros((1, 16, 1), np.uint8)]).tobytes()
    runs = b"".join(b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in indices[::-1]) + b"\0\1"
    bmp("runs.BMP", 8, 1, runs, colors[indices], palette=palette)


pillow_pictures()
png_pictures()
tiff_pictures()
bmp_pictures()
