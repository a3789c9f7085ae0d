"""A stained blood smear on the glass: where the cells lie, and how much dye each point holds.

Lengths are in micrometers, with the origin in the middle of the image; a shape is a signed
distance function, negative inside, that a pixel samples at its center.  Nothing here knows of a
microscope but the size of its pixel: `synthetic.py` looks at the smear and takes the picture.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

CLASSES = ('neutrophil', 'lymphocyte', 'monocyte', 'eosinophil', 'basophil')
MASK_CLASSES = ('background', 'cytoplasm', 'nucleus')
BOX_CLASSES = ('WBC', 'RBC', 'platelet')

FIELD = 20.0  # what an image shows at magnification 1, um
RED_GRID, RED_SPACING = 5, 7.2  # places for red cells, past the edge of the widest field
PLATELETS = 3
MAX_BOXES = 1 + RED_GRID**2 + PLATELETS
LOBES = 5
GRANULES = 120
WAVES = 6

# What tells the classes apart, as the range (low, high) of each trait in each class.  The nucleus
# is a chain of discs along an arc, joined by bridges.  Sizes and stains overlap between classes:
# shape and texture are to give the class, not area or color.
TRAITS = {
    # cell radius, um
    'radius': ((5.2, 6.8), (4.6, 6.4), (5.4, 7.2), (5.2, 6.8), (5.0, 6.6)),
    # number of discs, rounded down
    'lobes': ((3.4, 6.0), (1.0, 2.0), (5.0, 6.0), (2.0, 3.0), (2.0, 4.0)),
    # disc radius, as a part of the cell's
    'lobe': ((0.22, 0.30), (0.66, 0.86), (0.26, 0.36), (0.30, 0.40), (0.34, 0.46)),
    # radius of the arc, as a part of the cell's
    'arc': ((0.36, 0.50), (0.00, 0.12), (0.34, 0.48), (0.34, 0.48), (0.22, 0.36)),
    # angle of the arc, radians
    'span': ((2.8, 4.8), (0.0, 1.0), (2.8, 4.6), (2.2, 3.1), (1.8, 3.1)),
    # half-width of a bridge, as a part of the disc's radius
    'bridge': ((0.15, 0.60), (0.5, 1.0), (0.80, 1.0), (0.15, 0.60), (0.30, 0.80)),
    # dye of the granules: azure, eosin; their size, um; the part of them that lies on the nucleus
    'granule_azure': ((0.00, 0.15), (0.00, 0.10), (0.00, 0.12), (0.00, 0.15), (0.40, 0.90)),
    'granule_eosin': ((0.00, 0.25), (0.00, 0.20), (0.00, 0.20), (0.45, 1.00), (0.00, 0.30)),
    'granule_size': ((0.20, 0.32), (0.20, 0.35), (0.20, 0.32), (0.26, 0.40), (0.30, 0.50)),
    'granule_cover': ((0.0, 0.1), (0.0, 0.1), (0.0, 0.1), (0.0, 0.2), (0.4, 0.9)),
    # dye of the cytoplasm
    'cytoplasm_azure': ((0.05, 0.22), (0.08, 0.28), (0.08, 0.28), (0.05, 0.22), (0.05, 0.25)),
    'cytoplasm_eosin': ((0.05, 0.30), (0.00, 0.20), (0.00, 0.25), (0.05, 0.35), (0.00, 0.25)),
}

# The uniform draws that make a smear.
DRAWS = {
    'traits': (len(TRAITS),),
    'place': (2,),
    'body': (3,),
    'bend': (),
    'waves': (4, WAVES),
    'lobes': (3, LOBES),
    'clumps': (3, GRANULES),
    'granules': (3, GRANULES),
    'film': (6,),
    'red': (6, RED_GRID**2),
    'platelets': (4, PLATELETS),
}


class Smear(NamedTuple):
    """What lies on the glass under one image.

    dye_HxWx3: float32, the amounts of azure, eosin and hemoglobin, about 1 where most.
    target:    'label', 'mask', 'box' and 'box_class', as `examples.Examples` has them.
    """

    dye_HxWx3: jax.Array
    target: dict[str, jax.Array]


def draw_smear(key, label, image_size, pixel) -> Smear:
    """One white cell of class `label` among red cells and platelets.

    `pixel`, um, is the only thing that a microscope changes: the same key gives the same cells.
    """
    u = _uniform(key)
    axis_S = (jnp.arange(image_size, dtype=jnp.float32) + 0.5 - 0.5 * image_size) * pixel
    traits = _traits(u['traits'], label)
    place = 3.0 * u['place'] - 1.5

    white_HxWx3, body_HxW, nucleus_HxW = _white_cell(u, traits, place, axis_S, pixel)
    red = _red_cells(u['film'], u['red'], place, traits['radius'], axis_S, pixel)
    platelet = _platelets(u['platelets'], place, traits['radius'], axis_S, pixel)

    mask_HxW = (body_HxW > 0.5).astype(jnp.uint8) * (1 + (nucleus_HxW > 0.5).astype(jnp.uint8))
    # What the white cell hides is not there, and a cell cut to a sliver is nobody's to find.
    around_MxHxW = jnp.concatenate([red.cover, platelet.cover]) * (1.0 - body_HxW)[None]
    shape_MxHxW = around_MxHxW > 0.5
    area_M = jnp.sum(shape_MxHxW, axis=(1, 2)).astype(jnp.float32) * pixel**2
    seen_M = area_M > 0.3 * jnp.concatenate([red.area, platelet.area])
    seen_M = jnp.concatenate([jnp.ones(1, bool), seen_M])
    shape_MxHxW = jnp.concatenate([(mask_HxW > 0)[None], shape_MxHxW])
    kind_M = np.repeat(np.arange(3, dtype=np.int32), [1, RED_GRID**2, PLATELETS])
    target = {
        'label': jnp.asarray(label, jnp.int32),
        'mask': mask_HxW,
        'box': jnp.where(seen_M[:, None], jax.vmap(_tight_box)(shape_MxHxW), 0.0),
        'box_class': jnp.where(seen_M, kind_M, -1),
    }
    around_HxWx3 = (red.dye + platelet.dye) * (1.0 - body_HxW)[:, :, None]
    return Smear(white_HxWx3 + around_HxWx3, target)


class Bystanders(NamedTuple):
    """The cells of one kind: each one's cover [n, H, W] and whole area, the dye of all."""

    cover: jax.Array
    area: jax.Array
    dye: jax.Array


def _uniform(key):
    """The draws by name, from one call: each call costs XLA about a second to compile."""
    sizes = [math.prod(shape) for shape in DRAWS.values()]
    pieces = jnp.split(jax.random.uniform(key, (sum(sizes),)), np.cumsum(sizes)[:-1])
    return {name: p.reshape(shape) for p, (name, shape) in zip(pieces, DRAWS.items())}


def _traits(u_F, label):
    ranges_FxKx2 = jnp.array(list(TRAITS.values()), jnp.float32)
    low_F, high_F = ranges_FxKx2[:, label, 0], ranges_FxKx2[:, label, 1]
    return dict(zip(TRAITS, low_F + u_F * (high_F - low_F)))


def _white_cell(u, traits, place, axis_S, pixel):
    """Its dye, and how much of each pixel the cell and its nucleus cover."""
    radius = traits['radius']
    y_S, x_S = axis_S - place[0], axis_S - place[1]
    y_HxW, x_HxW = _wavy(u['waves'], u['bend'], y_S, x_S)
    turn, stretch, depth = u['body']
    u_HxW, v_HxW = _rotate(2 * jnp.pi * turn, y_HxW, x_HxW)
    stretch = jnp.exp(0.24 * stretch - 0.12)
    body_HxW = _cover(_length(u_HxW * stretch, v_HxW / stretch) - radius, pixel)
    nucleus_HxW = _cover(_nucleus(u['lobes'], traits, u_HxW, v_HxW), pixel) * body_HxW

    clump_HxW = jnp.tanh(_dots(u['clumps'], y_S, x_S, radius, 0.45, 0.6))
    granule_HxW = jnp.tanh(_dots(u['granules'], y_S, x_S, radius, traits['granule_size'], 1.0))
    nucleus_dye_HxW = nucleus_HxW * (0.65 + 0.35 * depth) * (0.75 + 0.4 * clump_HxW)
    cytoplasm_HxW = body_HxW - nucleus_HxW
    granule_HxW *= cytoplasm_HxW + traits['granule_cover'] * nucleus_HxW
    azure_HxW = (
        nucleus_dye_HxW
        + traits['cytoplasm_azure'] * cytoplasm_HxW
        + traits['granule_azure'] * granule_HxW
    )
    eosin_HxW = (
        0.1 * nucleus_HxW
        + traits['cytoplasm_eosin'] * cytoplasm_HxW
        + traits['granule_eosin'] * granule_HxW
    )
    dye_HxWx3 = jnp.stack([azure_HxW, eosin_HxW, jnp.zeros_like(azure_HxW)], axis=-1)
    return dye_HxWx3, body_HxW, nucleus_HxW


def _nucleus(u_3xL, traits, y_HxW, x_HxW):
    """Signed distance of the chain of discs and bridges."""
    radius, count = traits['radius'], jnp.floor(traits['lobes'])
    index_L = jnp.arange(LOBES, dtype=jnp.float32)
    used_L = index_L < count
    angle_L = traits['span'] * (jnp.minimum(index_L / jnp.maximum(count - 1.0, 1.0), 1.0) - 0.5)
    arc_Lx2 = jnp.stack([jnp.sin(angle_L), jnp.cos(angle_L)], axis=1)
    disc_Lx2 = radius * (traits['arc'] * arc_Lx2 + 0.16 * u_3xL[:2].T - 0.08)
    # An arc about the middle leaves the nucleus to one side: half-way back is where they lie.
    middle_2 = jnp.sum(disc_Lx2, axis=0, where=used_L[:, None]) / count
    disc_Lx2 -= 0.6 * middle_2[None]
    size_L = radius * traits['lobe'] * (0.85 + 0.3 * u_3xL[2])

    def disc(used, center_2, size):
        return jnp.where(used, _length(y_HxW - center_2[0], x_HxW - center_2[1]) - size, jnp.inf)

    def bridge(used, start_2, end_2, size):
        way_2 = end_2 - start_2
        y, x = y_HxW - start_2[0], x_HxW - start_2[1]
        along = jnp.clip((y * way_2[0] + x * way_2[1]) / (jnp.sum(way_2**2) + 1e-6), 0.0, 1.0)
        distance = _length(y - along * way_2[0], x - along * way_2[1])
        return jnp.where(used, distance - traits['bridge'] * size, jnp.inf)

    disc_LxHxW = jax.vmap(disc)(used_L, disc_Lx2, size_L)
    bridge_LxHxW = jax.vmap(bridge)(used_L[1:], disc_Lx2[:-1], disc_Lx2[1:], size_L[:-1])
    # The smooth minimum fills the corners where discs and bridges meet.
    return -jax.nn.logsumexp(-6.0 * jnp.concatenate([disc_LxHxW, bridge_LxHxW]), axis=0) / 6.0


def _red_cells(u_6, u_6xn, white_2, white_radius, axis_S, pixel):
    """Biconcave discs on a jittered grid, with gaps, none where the white cell lies."""
    low_6 = np.array([-4.0, -4.0, 3.2, 0.3, 0.3, 0.7], np.float32)
    high_6 = np.array([4.0, 4.0, 3.9, 1.0, 1.0, 1.1], np.float32)
    shift_y, shift_x, size, crowd, pallor, depth = low_6 + u_6 * (high_6 - low_6)
    line = (jnp.arange(RED_GRID, dtype=jnp.float32) - (RED_GRID - 1) / 2) * RED_SPACING
    grid_2xn = jnp.stack(jnp.meshgrid(line, line)).reshape(2, -1)
    grid_2xn += jnp.stack([shift_y, shift_x])[:, None]
    place_nx2 = (grid_2xn + 5.0 * u_6xn[:2] - 2.5).T
    radius_nx2 = (size * jnp.exp(0.2 * u_6xn[2:4] - 0.1)).T
    turn_n = jnp.pi * u_6xn[4]
    gap_n = jnp.linalg.norm(place_nx2 - white_2[None], axis=1) - white_radius
    present_n = (u_6xn[5] < crowd) & (gap_n > 0.7 * size)

    def one(place_2, radius_2, turn, present):
        u, v = _rotate(turn, (axis_S - place_2[0])[:, None], (axis_S - place_2[1])[None])
        rho2 = (u / radius_2[0]) ** 2 + (v / radius_2[1]) ** 2
        cover = jnp.where(present, _cover((jnp.sqrt(rho2) - 1.0) * jnp.min(radius_2), pixel), 0.0)
        return cover, cover * depth * (1.0 - pallor * jnp.maximum(1.0 - 1.5 * rho2, 0.0) ** 2)

    cover_nxHxW, hemoglobin_nxHxW = jax.vmap(one)(place_nx2, radius_nx2, turn_n, present_n)
    hemoglobin_HxW = jnp.sum(hemoglobin_nxHxW, axis=0)
    zero = jnp.zeros_like(hemoglobin_HxW)
    dye_HxWx3 = jnp.stack([zero, zero, hemoglobin_HxW], axis=-1)
    return Bystanders(cover_nxHxW, jnp.pi * jnp.prod(radius_nx2, axis=1), dye_HxWx3)


def _platelets(u_4xn, white_2, white_radius, axis_S, pixel):
    """Small purple discs with a darker heart."""
    place_nx2 = (u_4xn[:2] - 0.5).T * RED_SPACING * (RED_GRID - 1)
    radius_n = 0.9 + 0.8 * u_4xn[2]
    gap_n = jnp.linalg.norm(place_nx2 - white_2[None], axis=1) - white_radius
    present_n = (u_4xn[3] < 0.7) & (gap_n > radius_n)

    def one(place_2, radius, present):
        distance = _length((axis_S - place_2[0])[:, None], (axis_S - place_2[1])[None])
        cover = jnp.where(present, _cover(distance - radius, pixel), 0.0)
        return cover, cover * (0.25 + 0.35 * jnp.exp(-((2.0 * distance / radius) ** 2)))

    cover_nxHxW, azure_nxHxW = jax.vmap(one)(place_nx2, radius_n, present_n)
    azure_HxW = jnp.sum(azure_nxHxW, axis=0)
    dye_HxWx3 = jnp.stack([azure_HxW, 0.3 * azure_HxW, jnp.zeros_like(azure_HxW)], axis=-1)
    return Bystanders(cover_nxHxW, jnp.pi * radius_n**2, dye_HxWx3)


def _cover(distance_HxW, pixel):
    """The part of each pixel inside the shape: 1 inside, 0 outside, a ramp one pixel wide."""
    return jnp.clip(0.5 - distance_HxW / pixel, 0.0, 1.0)


def _length(y, x):
    return jnp.sqrt(y**2 + x**2)


def _rotate(turn, y, x):
    return jnp.cos(turn) * y - jnp.sin(turn) * x, jnp.sin(turn) * y + jnp.cos(turn) * x


def _wavy(u_4xJ, u, y_S, x_S):
    """Coordinates bent by a few random plane waves, so that no outline is a perfect circle."""
    number_Jx2 = 1.7 * (u_4xJ[:2] - 0.5).T  # radians a um
    phase_Jx2 = 2 * jnp.pi * u_4xJ[2:].T
    height = 0.08 + 0.22 * u

    def wave(number_2, phase_2):
        angle_HxW = (number_2[0] * y_S)[:, None] + (number_2[1] * x_S)[None]
        return jnp.sin(angle_HxW + phase_2[0]), jnp.sin(angle_HxW + phase_2[1])

    bend_y_JxHxW, bend_x_JxHxW = jax.vmap(wave)(number_Jx2, phase_Jx2)
    y_HxW = y_S[:, None] + height * jnp.sum(bend_y_JxHxW, axis=0)
    x_HxW = x_S[None] + height * jnp.sum(bend_x_JxHxW, axis=0)
    return y_HxW, x_HxW


def _dots(u_3xG, y_S, x_S, reach, size, height):
    """A sum of Gaussian dots within `reach`; separable, hence one matrix product."""
    radius_G, angle_G = reach * jnp.sqrt(u_3xG[0]), 2 * jnp.pi * u_3xG[1]
    height_G = height * (0.3 + 0.7 * u_3xG[2])
    y_GxH = (y_S[None] - (radius_G * jnp.sin(angle_G))[:, None]) / size
    x_GxW = (x_S[None] - (radius_G * jnp.cos(angle_G))[:, None]) / size
    y_GxH, x_GxW = jnp.exp(-0.5 * y_GxH**2), jnp.exp(-0.5 * x_GxW**2)
    return jnp.einsum('g,gh,gw->hw', height_G, y_GxH, x_GxW, precision='highest')


def _tight_box(shape_HxW):
    """(y0, x0, y1, x1) of the pixels that are true, y1 and x1 past the last one."""
    rows, columns = jnp.any(shape_HxW, axis=1), jnp.any(shape_HxW, axis=0)

    def ends(line):
        return jnp.argmax(line), line.shape[0] - jnp.argmax(line[::-1])

    (y0, y1), (x0, x1) = ends(rows), ends(columns)
    return jnp.stack([y0, x0, y1, x1]).astype(jnp.float32)
