"""Images, masks and boxes made square: padded with black or unknown, then resized.

A pixel may be higher than wide (`aspect`, height by width); squares have square pixels.
"""

import numpy as np
from PIL import Image

from fedgen_jax.data.examples import UNKNOWN
from fedgen_jax.data.folder.reading import Problem

_LONG = 8  # sides of a strip
_ROWS = 2**24  # pixels that are padded at a time


def square_image(image: Image.Image, size: int, aspect: float = 1.0) -> np.ndarray:
    """uint8 [size, size, 3]: padded with black to a centered square, resized with antialiasing."""
    image = _resample(image.convert('RGB'), aspect, Image.Resampling.BICUBIC)
    return np.array(_pad_and_resize(image, size, Image.Resampling.BICUBIC, 0))


def square_mask(mask_HxW: np.ndarray, size: int, aspect: float = 1.0) -> np.ndarray:
    """uint8 [size, size]: padded with `UNKNOWN` to a square; a pixel is what most of it was.

    The nearest pixel would be half a pixel off where the size is halved.
    """
    mask = _resample(Image.fromarray(mask_HxW), aspect, Image.Resampling.NEAREST)
    mask_HxW = np.asarray(mask)
    values = np.unique(mask_HxW)
    if mask.width != mask.height:
        values = np.union1d(values, np.uint8(UNKNOWN))
    cover = [
        _pad_and_resize(
            Image.fromarray((mask_HxW == v).astype(np.float32)), size, Image.Resampling.BOX,
            float(v == UNKNOWN),
        )
        for v in values
    ]
    return values[np.argmax(np.stack(cover), axis=0)]


def square_boxes(box_Mx4: np.ndarray, width: int, height: int, size: int) -> np.ndarray:
    """float32 [M, 4] boxes (y0, x0, y1, x1), moved from a width x height image to its square."""
    side, y0, x0 = square_frame(width, height)
    offset = np.array([y0, x0, y0, x0], np.float32)
    return ((box_Mx4 + offset) * np.float32(size / side)).astype(np.float32)


def original_mask(
    mask_SxS: np.ndarray, width: int, height: int, aspect: float = 1.0
) -> np.ndarray:
    """uint8 [height, width]: a mask of the square, in the pixels of the image within it.

    Each class is resampled linearly, and the largest stands, so that its edges have no steps.
    """
    size = mask_SxS.shape[0]
    inner = square_pixels(width, height, aspect)
    side, y0, x0 = square_frame(*inner)
    part = tuple(v * size / side for v in (x0, y0, x0 + inner[0], y0 + inner[1]))
    best, found = np.full((height, width), -1, np.float32), np.zeros((height, width), np.uint8)
    for value in np.unique(mask_SxS):
        of_class = Image.fromarray((mask_SxS == value).astype(np.float32))
        cover = np.asarray(of_class.resize((width, height), Image.Resampling.BILINEAR, part))
        found[cover > best] = value
        best = np.maximum(best, cover)
    return found


def original_boxes(
    box_Mx4: np.ndarray, width: int, height: int, size: int, aspect: float = 1.0
) -> np.ndarray:
    """The inverse of `square_boxes`, clipped to the image, whose pixels may not be square."""
    inner = square_pixels(width, height, aspect)
    side, y0, x0 = square_frame(*inner)
    offset = np.array([y0, x0, y0, x0], np.float32)
    pixel = np.array([height / inner[1], width / inner[0]] * 2, np.float32)
    limit = np.array([height, width, height, width], np.float32)
    return np.clip((np.asarray(box_Mx4) * np.float32(side / size) - offset) * pixel, 0, limit)


def square_frame(width: int, height: int) -> tuple[int, int, int]:
    """The side of the centered square around an image, and where the image lies in it (y, x)."""
    side = max(width, height)
    return side, (side - height) // 2, (side - width) // 2


def square_pixels(width: int, height: int, aspect: float) -> tuple[int, int]:
    """The width and height once the longer sides of pixels are divided, so that nothing is lost."""
    size = round(width * max(1 / aspect, 1)), round(height * max(aspect, 1))
    if aspect != 1 and size[0] * size[1] > (Image.MAX_IMAGE_PIXELS or np.inf):
        raise Problem(
            f'pixels {aspect:.3g} times as high as wide, so that {width} x {height} become '
            f'{size[0]} x {size[1]}: correct the spacing in the file'
        )
    return size


def _resample(image, aspect, method):
    size = square_pixels(*image.size, aspect)
    return image if size == image.size else image.resize(size, method)


def _pad_and_resize(image, size, resample, fill):
    """The padded square at size x size; the large square itself is never made.

    Resizing treats rows first, then columns: rows are padded and shortened a few at a time, to the
    same bytes.  A high strip, whose padding would be most of the work, is laid on its side.
    """
    if image.height > _LONG * image.width:
        turned = image.transpose(Image.Transpose.TRANSPOSE)
        return _pad_and_resize(turned, size, resample, fill).transpose(Image.Transpose.TRANSPOSE)
    side, y0, x0 = square_frame(*image.size)
    narrow = Image.new(image.mode, (size, side), fill)
    step = max(1, _ROWS // side)
    for y in range(0, image.height, step):
        end = min(y + step, image.height)
        rows = Image.new(image.mode, (side, end - y), fill)
        rows.paste(image.crop((0, y, image.width, end)), (x0, 0))
        narrow.paste(rows.resize((size, end - y), resample), (0, y0 + y))
    return narrow.resize((size, size), resample)
