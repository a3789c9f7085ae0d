"""Masks and boxes drawn over an image, for people to look at."""

import numpy as np
from PIL import Image, ImageDraw

# Told apart by readers of every color vision, and from pink and violet cells.
COLORS = np.array(
    [[0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [86, 180, 233]], np.uint8
)
SIDE = 192  # pixels of a picture, about


def enlarge(image_HxWx3: np.ndarray) -> np.ndarray:
    """The image, each pixel repeated until the picture is about `SIDE` wide."""
    k = scale_of(image_HxWx3)
    return image_HxWx3.repeat(k, 0).repeat(k, 1)


def scale_of(image_HxWx3: np.ndarray) -> int:
    return max(1, SIDE // image_HxWx3.shape[1])


def masks(image_HxWx3: np.ndarray, mask_HxW: np.ndarray, num_classes: int) -> np.ndarray:
    """The image with the outline of each class but 0; values from `num_classes` on are unknown."""
    picture, k = enlarge(image_HxWx3), scale_of(image_HxWx3)
    mask = np.where(mask_HxW < num_classes, mask_HxW, 0).repeat(k, 0).repeat(k, 1)
    edge = np.zeros(mask.shape, bool)
    for axis in (0, 1):
        for step in (-2, -1, 1, 2):
            edge |= np.roll(mask, step, axis) != mask
    color = COLORS[(mask - 1) % len(COLORS)]
    return np.where(((mask > 0) & edge)[..., None], color, picture)


def boxes(image_HxWx3: np.ndarray, box_Mx4: np.ndarray, box_class_M: np.ndarray) -> np.ndarray:
    """The image with boxes (y0, x0, y1, x1 in its pixels); class -1 is none."""
    k = scale_of(image_HxWx3)
    picture = Image.fromarray(enlarge(image_HxWx3))
    pen = ImageDraw.Draw(picture)
    for (y0, x0, y1, x1), c in zip(k * np.asarray(box_Mx4), box_class_M):
        if c >= 0 and x1 > x0 and y1 > y0:
            color = tuple(int(v) for v in COLORS[c % len(COLORS)])
            pen.rectangle((float(x0), float(y0), float(x1), float(y1)), outline=color, width=2)
    return np.array(picture)
