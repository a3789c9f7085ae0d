"""png, jpeg and tiff, by Pillow: turned as their EXIF says, on the gray scale that they name."""

import io
import struct
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from fedgen_jax.data.folder.reading import UNWINDOWED, Picture, Problem, Window, to_rgb, to_unit

SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff')

TURNED = 'EXIF orientation: the picture was turned; masks and boxes lie on the turned one'
DAMAGED_EXIF = 'damaged EXIF: the picture was taken as it is stored'
FIRST = 'several pictures in one jpeg (MPO): the first was taken'
ALPHA = 'the same alpha everywhere, and not opaque: the colors were taken as they are'
UNEQUAL = 'a resolution that differs between x and y was not used: pixels were taken as square'
UNIT_FLOATS = 'floats of at most 1: 1 is white'
BYTE_FLOATS = 'floats above 1: 255 is white'
FEW_GRAYS = 32  # of 256: a file that says 16 bits and holds 12 has 16
NO_SCALE = (  # a window is a scale
    'save the image with 8 or 16 bits, or set data.window=LOW:HIGH, or center'
)
DIM = 'gray of more than 8 bits, of which few are left in 8: set data.window'
FEWER_BITS = 'fewer bits than the file has room for, as its tags say: their largest number is white'

_TURNS = dict(zip(range(2, 9), (
    Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)))
_BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _FORMAT = 258, 259, 262, 274, 339
_MAX_SAMPLE, _S_MAX_SAMPLE = 281, 341
_LOSSY = (6, 7, 34892, 50001, 50002)  # TIFF's numbers of JPEG, WebP and JPEG XL
_WHITE_IS_ZERO = 0
_SHOWN = 0.05  # of a picture whose alpha is meant


def read_image(path: str | bytes | np.ndarray, window: Window | None = None) -> Picture:
    """path: of the file, or its content, or pixels, uint8 [H, W] or [H, W, 1 or 3].

    Integers of more than 8 bits are scaled from the bits that the file says it has, else 16.

    Floats are scaled from [0, 1] or [0, 255].  Transparent pixels lie on white; an alpha that is
    the same everywhere tells nothing, and where it is 0 the picture would show nothing: it is
    ignored.

    window: in place of these scales, in the numbers as stored, of gray files of more than 8 bits.
    """
    if isinstance(path, np.ndarray):
        return Picture(_of_pixels(path), (UNWINDOWED,) * bool(window))
    image, raw, tags, assumed = _open(path)
    if window and _is_deep(image):
        unit = to_unit(np.asarray(image), *window)
        unit = 1 - unit if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else unit
        return Picture(to_rgb(unit), tuple(assumed))
    if window:
        assumed = [*assumed, UNWINDOWED]
    if image.mode.startswith('I'):
        image, more = _gray_of_integers(image, *_said_bits(path, image, raw, tags), tags)
    elif image.mode == 'F':
        image, more = _gray_of_floats(image, tags)
    else:
        bits = _said_bits(path, image, raw, tags)[0] if ';16' in raw else 16
        image, more = _rgb_of_colors(image, raw, bits)
    return Picture(image, (*assumed, *more))


def read_values(path: str | bytes | np.ndarray) -> np.ndarray | None:
    """[H, W]: the numbers that are stored, of gray files of more than 8 bits; None of others."""
    if isinstance(path, np.ndarray):
        return None
    image = _open(path)[0]
    return np.asarray(image) if _is_deep(image) else None


def _is_deep(image) -> bool:
    return image.mode.startswith(('I', 'F'))


def read_mask(path: str) -> np.ndarray:
    """[H, W] (or more axes, if it is no mask): the numbers that are stored."""
    image, raw, tags, _ = _open(path)
    if image.format != 'PNG' and (image.format != 'TIFF' or tags.get(_COMPRESSION) in _LOSSY):
        raise Problem('compressed with loss, which makes numbers of other classes: export the '
                      'mask again as png')
    mask = np.asarray(image)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and image.mode != '1':
        raise Problem('a TIFF whose 0 is white: save the mask as png')
    spread = {'L;2': 85, 'L;4': 17}.get(raw)  # Pillow spreads numbers of 2 and 4 bits over 8
    return mask // spread if spread else mask


def _of_pixels(x):
    if x.ndim == 3 and x.shape[2] == 1:
        x = x[..., 0]
    if x.dtype != np.uint8 or x.ndim not in (2, 3) or (x.ndim == 3 and x.shape[2] != 3):
        raise Problem(f'pixels {x.dtype} {list(x.shape)}: must be uint8 [H, W] or [H, W, 1 or 3]')
    return Image.fromarray(x).convert('RGB')


def _stream(path: str | bytes) -> BinaryIO:
    return io.BytesIO(path) if isinstance(path, bytes) else open(path, 'rb')  # noqa: SIM115


def _open(path):
    """The image, turned; Pillow's name of what is stored; the tags of a TIFF; what was assumed."""
    # Given a path, Pillow maps some TIFFs into memory, and garbles those that lie on their side.
    with _stream(path) as file, _identify(file) as image:
        frames, assumed = getattr(image, 'n_frames', 1), []
        if image.format == 'MPO':
            assumed.append(FIRST)
        elif frames > 1:
            raise Problem(f'{frames} pages in one file: save the one you want by itself')
        raw = image.tile[0].args if image.tile else ''
        raw = raw if isinstance(raw, str) else str(raw[0])
        tags = getattr(image, 'tag_v2', {})
        is_turned = tags.get(_ORIENTATION) in _TURNS  # Pillow turns a TIFF by itself
        image.load()
        x = np.asarray(image)
        if 2 in np.atleast_1d(tags.get(_FORMAT, 1)) and x.dtype == np.uint8 and x.max() > 127:
            raise Problem('signed integers below 0: save the image with 8 or 16 bits, unsigned')
        assumed += _is_unequal(image.info) * [UNEQUAL]
        if image.format == 'TIFF':
            return image, raw, tags, assumed + is_turned * [TURNED]
        try:
            orientation = image.getexif().get(_ORIENTATION)
        except Exception:  # parsers raise nearly every type; the pixels are sound
            orientation = None
            assumed.append(DAMAGED_EXIF)
        if orientation not in _TURNS:
            return image, raw, tags, assumed
        turned = image.transpose(_TURNS[orientation])
        turned.format = image.format
        return turned, raw, tags, [*assumed, TURNED]


def _identify(file):
    try:
        return Image.open(file, formats=('PNG', 'JPEG', 'TIFF'))
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise Problem(
            f'has more than {most} million pixels: save it smaller, or in tiles'
        ) from None
    except UnidentifiedImageError:
        raise Problem(
            'is no png, jpeg or tiff of a known kind (of 8, 12 or 16 bits, or floats): replace the '
            'file, or leave it out'
        ) from None


def _is_unequal(info):
    x, y = map(float, info.get('aspect') or info.get('jfif_density') or info.get('dpi') or (1, 1))
    return x > 0 and y > 0 and abs(x / y - 1) > 0.01


def _said_bits(path, image, raw, tags) -> tuple[int, bool]:
    """How many of the bits of a sample are used, and whether these are the upper ones."""
    if image.format == 'PNG':
        return _significant_bits(path), True
    bits = int(np.min(tags.get(_BITS, 16)))
    largest = int(np.max(tags.get(_MAX_SAMPLE, tags.get(_S_MAX_SAMPLE, 0))))
    said = largest.bit_length()
    if 8 <= said <= min(bits, 16) and largest == 2**said - 1:
        return said, False
    return min(bits, 16), False  # any other largest value tells what one image happens to use


def _significant_bits(path) -> int:
    """sBIT of a png of 16 bits."""
    with _stream(path) as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack('>I4s', head)
            if name == b'IDAT':
                break
            content = file.read(length + 4)[:length]
            if name == b'sBIT' and content and 8 <= content[0] <= 16:
                return content[0]
    return 16


def _gray_of_integers(image, bits, upper, tags):
    x = np.asarray(image).astype(np.int64)
    if x.min() < 0 or x.max() > 65535:
        raise Problem(f'integers outside 0 to 65535: {NO_SCALE}')
    if upper and bits < 16 and _fill_16(x, bits):
        bits = 16
    white = 2**bits - 1
    if x.max() > white:
        raise Problem(f'pixels above the {white} that its tags say: correct the tags')
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow turns over those of 8 bits alone
        x = white - x
    gray = np.rint(x / (white / 255)).astype(np.uint8)
    left, had = (int(np.sum(np.bincount(values.ravel()) > 0)) for values in (gray, x))
    dim = left < FEW_GRAYS and left < had
    assumed = (bits < 16) * [FEWER_BITS] + dim * [DIM]
    return Image.fromarray(gray).convert('RGB'), assumed


def _fill_16(x, bits):
    """Whether numbers of `bits` bits were spread over 16, as png wants it, not stored as they are.

    The lower bits are then 0, or repeat the upper ones.
    """
    spare = 16 - bits
    high = x >> spare
    spread = high << spare
    return x.max() >= 2**bits or np.all((x == spread) | (x == spread | high >> bits - spare))


def _gray_of_floats(image, tags):
    x = np.asarray(image)
    if not np.all(np.isfinite(x)):
        raise Problem('NaN or infinite pixels: correct the image')
    if x.min() < 0 or x.max() > 255:
        raise Problem(f'floats outside [0, 1] and [0, 255]: {NO_SCALE}')
    unit = x.max() <= 1
    gray = np.rint(x * (255 if unit else 1)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        gray = 255 - gray
    return Image.fromarray(gray).convert('RGB'), [UNIT_FLOATS if unit else BYTE_FLOATS]


def _rgb_of_colors(image, raw, bits):
    """An image of 8 bits a channel; Pillow keeps the upper 8 of 16."""
    if bits < 16 and np.asarray(image.convert('RGB')).max() < 2 ** (bits - 8):
        raise Problem(f'colors of {bits} bits in 16: save them with 8 bits a channel')
    if image.mode not in ('LA', 'La', 'PA', 'RGBA', 'RGBa') and 'transparency' not in image.info:
        return image.convert('RGB'), []
    image = image.convert('RGBA')
    least, most = image.getchannel('A').getextrema()
    if least == most:
        if most == 0 and raw.startswith('RGBa'):  # colors times alpha
            raise Problem('an alpha of 0 everywhere leaves no color: save the image without alpha')
        return image.convert('RGB'), (most < 255) * [ALPHA]
    if np.asarray(image.getchannel('A')).mean() < _SHOWN * 255:
        raise Problem(
            'an alpha that hides all but a twentieth of the picture: save the image without alpha'
        )
    white = Image.new('RGBA', image.size, 'white')
    return Image.alpha_composite(white, image).convert('RGB'), []
