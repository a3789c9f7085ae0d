import ast
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax.data import examples as ex
from fedgen_jax.data import synthetic
from fedgen_jax.data.source import draw
from fedgen_jax.data.synthetic import smear
from fedgen_jax.data.targets import TARGETS

SIZE, NUM = 32, 40
KEY = jax.random.key(7)
LABELS = np.arange(300, dtype=np.int32) % len(synthetic.CLASSES)


def client(key, client_id):
    """Spells every argument out, as `centers` does, so that the tests compile it once."""
    return jax.device_get(
        synthetic.draw_client(
            key, client_id, NUM, SIZE, spread=1.0, prevalence_concentration=2.0, scanner=0
        )
    )


@jax.jit
def draw_all(acquisition, label_N):
    """The same cells for any acquisition."""
    key_N = jax.random.split(KEY, len(label_N))
    return jax.vmap(lambda k, y: synthetic.draw(k, acquisition, y, SIZE))(key_N, label_N)


@pytest.fixture(scope='module')
def scanner():
    return synthetic.sample_acquisition(KEY, 0.0)


@pytest.fixture(scope='module')
def reference(scanner):
    return jax.device_get(draw_all(scanner, LABELS))


@pytest.fixture(scope='module')
def one_client():
    return client(KEY, 3)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def nearest_centroid_accuracy(feature_NxF, label_N):
    """Trained on the even rows, scored on the odd ones."""
    feature_NxF = (feature_NxF - feature_NxF.mean(0)) / feature_NxF.std(0)
    classes = range(len(synthetic.CLASSES))
    train, train_label = feature_NxF[::2], label_N[::2]
    centroid_KxF = np.stack([train[train_label == k].mean(0) for k in classes])
    distance_NxK = ((feature_NxF[1::2, None] - centroid_KxF) ** 2).sum(-1)
    return np.mean(distance_NxK.argmin(1) == label_N[1::2])


def test_client_is_a_function_of_key_and_id(one_client):
    assert_equal(one_client, client(KEY, 3))
    for other in (client(KEY, 4), client(jax.random.key(8), 3)):
        assert np.mean(other.image != one_client.image) > 0.5


def test_examples_have_the_documented_shapes(one_client):
    target = one_client.target
    assert one_client.image.shape == (NUM, SIZE, SIZE, 3) and one_client.image.dtype == np.uint8
    assert target['label'].shape == (NUM,) and target['label'].dtype == np.int32
    assert target['mask'].shape == (NUM, SIZE, SIZE) and target['mask'].dtype == np.uint8
    assert target['box'].shape == (NUM, smear.MAX_BOXES, 4) and target['box'].dtype == np.float32
    assert target['box_class'].shape == (NUM, smear.MAX_BOXES)
    assert target['box_class'].dtype == np.int32
    np.testing.assert_array_equal(one_client.weight, np.ones(NUM, np.float32))


def test_clients_drawn_together_are_the_clients_drawn_alone(one_client):
    together = jax.jit(jax.vmap(lambda c: synthetic.draw_client(KEY, c, NUM // 2, SIZE)))
    examples = jax.device_get(together(jnp.array([0, 3])))
    alone = ex.take(one_client, np.arange(NUM // 2))
    assert_equal(examples.target['label'][1], alone.target['label'])
    assert_equal(examples.target['mask'][1], alone.target['mask'])
    # Other loop shapes may round the last bit otherwise, and then a coefficient to its neighbor.
    assert np.mean(examples.image[1] != alone.image) < 1e-2
    assert np.mean(examples.image[0] != alone.image) > 0.5


def test_centers_share_one_scanner_at_spread_0():
    a, b = (synthetic.client_acquisition(KEY, c, 0.0) for c in range(2))
    assert_equal(a, b)
    a, b = (synthetic.client_acquisition(KEY, c, 1.0) for c in range(2))
    for name, x, y in zip(a._fields, a, b):
        assert np.all(np.asarray(x) != np.asarray(y)), name


def test_acquisition_changes_the_colors_and_not_the_geometry(scanner, reference):
    other = synthetic.sample_acquisition(jax.random.key(1))
    image, target = draw_all(other._replace(magnification=scanner.magnification), LABELS)
    assert_equal(jax.device_get(target), reference[1])
    assert np.abs(np.mean(image, (0, 1, 2)) - reference[0].mean((0, 1, 2))).max() > 5


def test_magnification_scales_the_cell_about_the_middle(scanner, reference):
    factor = 0.8
    smaller = scanner._replace(magnification=factor * scanner.magnification)
    box_Nx4, small_Nx4 = (
        np.asarray(t['box'][:, 0]) for t in (reference[1], draw_all(smaller, LABELS)[1])
    )
    whole = (box_Nx4.min(1) > 0) & (box_Nx4.max(1) < SIZE)
    assert whole.sum() > 50
    expected_Nx4 = SIZE / 2 + factor * (box_Nx4 - SIZE / 2)
    np.testing.assert_allclose(small_Nx4[whole], expected_Nx4[whole], atol=1.5)


def test_white_cell_box_is_the_tight_box_of_its_mask(reference):
    _, target = reference
    for mask, box, box_class in zip(target['mask'], target['box'], target['box_class']):
        y, x = np.nonzero(mask)
        np.testing.assert_array_equal(box[0], [y.min(), x.min(), y.max() + 1, x.max() + 1])
        assert np.sum(box_class == 0) == 1 and box_class[0] == 0
        assert (mask == 2).sum() > 0.04 * (mask > 0).sum()


def test_boxes_lie_in_the_image_and_padding_is_empty(reference):
    box, box_class = reference[1]['box'], reference[1]['box_class']
    assert not box[box_class == -1].any()
    box = box[box_class >= 0]
    assert box.min() >= 0 and box.max() <= SIZE
    assert np.all(box[:, 2:] > box[:, :2])
    assert set(np.unique(box_class)) == {-1, 0, 1, 2}


def test_boxes_of_red_cells_hold_red_cells(scanner):
    """Under a stain that shows hemoglobin alone, the boxes are darker than what no box holds."""
    blank = jnp.zeros((3, 3)).at[2].set(1.0)
    image, target = jax.device_get(draw_all(scanner._replace(stain_3x3=blank), LABELS))
    y_HxW, x_HxW = np.mgrid[:SIZE, :SIZE]
    inside, outside = [], []
    for gray, box, box_class, mask in zip(
        image.mean(-1), target['box'], target['box_class'], target['mask']
    ):
        covered = np.zeros((SIZE, SIZE), bool)
        for y0, x0, y1, x1 in box[box_class == 1]:
            covered |= (y_HxW >= y0) & (y_HxW < y1) & (x_HxW >= x0) & (x_HxW < x1)
        inside.append(gray[covered & (mask == 0)])
        outside.append(gray[~covered])
    assert np.concatenate(outside).mean() - np.concatenate(inside).mean() > 30


def test_classes_come_with_the_prevalence_drawn():
    ids = range(25)
    share_CxK = np.stack([synthetic.client_prevalence(KEY, c) for c in ids])
    labels = [client(KEY, c).target['label'] for c in ids]
    seen_CxK = np.stack([np.bincount(y, minlength=len(synthetic.CLASSES)) for y in labels]) / NUM
    assert np.abs(seen_CxK - share_CxK).mean() < 0.06
    assert np.abs(seen_CxK - np.roll(share_CxK, 1, axis=0)).mean() > 0.1


def test_concentration_evens_the_prevalence():
    many, few = (synthetic.client_prevalence(KEY, 0, c) for c in (1e4, 0.3))
    np.testing.assert_allclose(many, 1 / len(synthetic.CLASSES), atol=0.02)
    assert np.max(few) > 0.4


def test_shape_tells_the_classes_where_mean_color_does_not(reference):
    image, target = reference
    mask, label = target['mask'], LABELS
    color = nearest_centroid_accuracy(image.mean((1, 2)), label)

    def solidity(shape_HxW):
        """Part of the nucleus' own box that it fills, and its outline to its area."""
        y, x = np.nonzero(shape_HxW)
        edge = np.sum(np.diff(shape_HxW, axis=0)) + np.sum(np.diff(shape_HxW, axis=1))
        return len(y) / (np.ptp(y) + 1) / (np.ptp(x) + 1), edge / np.sqrt(len(y))

    nucleus = mask == 2
    share = nucleus.sum((1, 2)) / (mask > 0).sum((1, 2))
    shape = np.column_stack([share, np.array([solidity(n) for n in nucleus])])
    shape = nearest_centroid_accuracy(shape, label)
    assert color < 0.4
    assert shape > 0.5


def test_centers_are_split_by_label_and_keep_it_under_a_new_scanner():
    kwargs = {'num_centers': 2, 'num_examples': NUM, 'image_size': SIZE, 'seed': 7}
    centers = synthetic.centers(**kwargs)
    assert [c.name for c in centers] == ['synthetic-0', 'synthetic-1']
    for center, updated in zip(centers, synthetic.centers(**kwargs, scanner=1)):
        assert len(set(center.path)) == NUM and updated.path == center.path
        np.testing.assert_array_equal(center.split, updated.split)
        np.testing.assert_allclose(np.bincount(center.split) / NUM, [0.6, 0.2, 0.2], atol=0.1)
        label_N = center.examples.target['label']
        np.testing.assert_array_equal(label_N, updated.examples.target['label'])
        color, new_color = (c.examples.image.mean((0, 1, 2)) for c in (center, updated))
        assert np.abs(color - new_color).max() > 2
    first = client(KEY, 1)
    assert_equal(centers[1].examples.target, first.target)


@pytest.mark.parametrize('target', synthetic.CLASSES_OF)
def test_drawn_centers_come_back_from_the_store(tmp_path, target):
    args = (2, 6, 16, 3, 1.0)
    for _ in range(2):  # drawn, then read
        source = draw(*args, target, cache=tmp_path)
        assert source.classes == synthetic.CLASSES_OF[target]
        for kept, drawn in zip(source.centers, synthetic.centers(*args)):
            assert (kept.name, kept.path, kept.unit) == (drawn.name, drawn.path, drawn.unit)
            np.testing.assert_array_equal(kept.split, drawn.split)
            np.testing.assert_array_equal(kept.examples.image, drawn.examples.image)
            assert set(kept.examples.target) == set(TARGETS[target].arrays)
            for key, x in kept.examples.target.items():
                np.testing.assert_array_equal(x, drawn.examples.target[key])
    assert len([f for f in tmp_path.iterdir() if not f.name.startswith('.')]) == 1


def test_shares_no_code_with_the_shifts():
    """Nor does what it imports: training's shifts are not the test's own generator."""
    waiting, seen = ['fedgen_jax.data.synthetic'], set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        tree = ast.parse(pathlib.Path(importlib.util.find_spec(name).origin).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.startswith('fedgen_jax'):
                inner = {f'{node.module}.{a.name}' for a in node.names}
                found = {node.module} | {m for m in inner if is_module(m)}
                waiting += found - seen
    assert 'fedgen_jax.data.examples' in seen  # imports are followed
    assert not [m for m in seen if m.startswith(('fedgen_jax.shifts', 'fedgen_jax.ops'))]


def is_module(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is a module, not a package
        return False
