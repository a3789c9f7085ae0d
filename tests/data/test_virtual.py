"""Drawn cells in the arrays and under the class names of other data."""

import jax
import numpy as np
import pytest

from fedgen_jax.data import synthetic
from fedgen_jax.data.examples import Examples
from fedgen_jax.data.virtual import draw_virtual, drawing_for, numbers_of, with_room, without_class

WBC = ('BAS', 'eosinophil', 'Lymphocyte', 'NEU')


def test_classes_go_by_name_and_by_what_is_told():
    told = ('neutrophil=NEU', 'basophil=bas')
    assert numbers_of('label', WBC, ()) == (None, 2, None, 1, None)
    assert numbers_of('label', WBC, told) == (3, 2, None, 1, 0)
    assert numbers_of('label', WBC, ('lymphocyte=', 'monocyte=NEU')) == (None, None, 3, 1, None)
    assert numbers_of('box', ('platelet', 'rbc', 'RBC'), ()) == (None, 2, 0)  # 'RBC' to the letter
    assert numbers_of('mask', ('none', 'cytoplasm'), ()) == (None, 1, None)


@pytest.mark.parametrize(
    ('target', 'classes', 'pairs', 'message'),
    [
        ('label', ('normal', 'pneumonia'), (), 'basophil; the classes are normal, pneumonia'),
        ('label', (), (), 'the classes are none'),
        ('mask', ('background', 'lesion'), (), 'no drawn class is one of the data'),
        ('label', WBC, ('neutrophil',), "'neutrophil' is not 'DRAWN=CLASS'"),
        ('label', WBC, ('NEU=neutrophil',), "'NEU=neutrophil' is not 'DRAWN=CLASS'"),
        ('label', WBC, ('neutrophil=NEUT',), 'drawn are neutrophil, .* are BAS, eosinophil'),
        ('label', WBC, ('neutrophil=NEU', 'neutrophil=BAS'), "'neutrophil=BAS' is not"),
    ],
)
def test_classes_that_do_not_fit_are_refused(target, classes, pairs, message):
    with pytest.raises(ValueError, match=f'data.virtual_classes: .*{message}') as error:
        numbers_of(target, classes, pairs)
    assert '\n' not in str(error.value)


def drawing_beside(target, classes, **arrays):
    """Drawn centers beside data of these target arrays."""
    examples = Examples(np.zeros((2, 16, 16, 3), np.uint8), arrays, np.ones(2, np.float32))
    return drawing_for(
        examples, target, classes, (), seed=5, first=1, num_examples=6, spread=2.0
    )


def test_a_target_that_is_not_drawn_is_refused():
    with pytest.raises(ValueError, match="drawn with label, mask, box, .*from 'age:AGE'"):
        drawing_beside('age:AGE', ('years',), age=np.zeros(2))


@pytest.fixture(scope='module')
def drawn():
    """What the second center of the others has, under drawn class names."""
    found = synthetic.draw_client(jax.random.key(5), 2, 6, 16, spread=2.0)
    return jax.tree.map(np.array, found)


def test_labels(drawn):
    drawing = drawing_beside('label', WBC, label=np.zeros(2, np.int32))
    found = draw_virtual(drawing, 1)
    image, target, weight = found.image, found.target, found.weight
    np.testing.assert_array_equal(image, drawn.image)
    of = np.array([-1, 2, -1, 1, -1])  # neutrophil, lymphocyte and so on, among WBC
    np.testing.assert_array_equal(target['label'], of[drawn.target['label']])
    assert target.keys() == {'label'} and target['label'].dtype == np.int32 and weight.sum() == 6
    assert without_class(drawing) == (
        "drawn 'neutrophil', 'monocyte', 'basophil': no such class here, so their labels are "
        'unknown'
    )


def test_masks_have_slices_of_no_volume(drawn):
    drawing = drawing_beside(
        'mask', ('bare', 'nucleus', 'cytoplasm'), mask=np.zeros((2, 16, 16), np.uint8),
        volume=np.zeros(2, np.int32),
    )
    target = draw_virtual(drawing, 1).target
    of = np.array([255, 2, 1])  # background, cytoplasm, nucleus
    np.testing.assert_array_equal(target['mask'], of[drawn.target['mask']])
    np.testing.assert_array_equal(target['volume'], np.full(6, -1))
    assert (target['mask'].dtype, target['volume'].dtype) == (np.uint8, np.int32)
    assert without_class(drawing).startswith("drawn 'background': no such class")


def test_masks_of_the_drawn_classes_stay_as_they_are(drawn):
    drawing = drawing_beside(
        'mask', synthetic.CLASSES_OF['mask'], mask=np.zeros((2, 16, 16), np.uint8)
    )
    target = draw_virtual(drawing, 1).target
    np.testing.assert_array_equal(target['mask'], drawn.target['mask'])
    assert target.keys() == {'mask'} and without_class(drawing) == ''


@pytest.mark.parametrize('most', [2, 40])
def test_boxes_have_as_much_room_on_both_sides(drawn, most):
    """`most`: of an image of the data; a drawn one has up to 29."""
    own = Examples(
        np.zeros((2, 16, 16, 3), np.uint8),
        {'box': np.ones((2, most, 4), np.float32), 'box_class': np.ones((2, most), np.int32)},
        np.ones(2, np.float32),
    )
    drawing = drawing_beside('box', ('rbc', 'wbc'), **own.target)
    room = max(most, synthetic.MAX_BOXES)
    target, other = draw_virtual(drawing, 1).target, with_room(own, drawing.room).target
    for x in (target, other):
        assert x['box'].shape[1:] == (room, 4) and x['box_class'].shape[1:] == (room,)
        assert {k: v.dtype for k, v in x.items()} == {k: own.target[k].dtype for k in x}
    assert (other['box_class'][:, most:] == -1).all() and (other['box'][:, :most] == 1).all()

    of = np.array([1, 0, -1, -1])  # WBC, RBC, platelet, padding
    known = target['box_class'][:, : synthetic.MAX_BOXES]
    np.testing.assert_array_equal(known, of[drawn.target['box_class']])
    np.testing.assert_array_equal(
        target['box'][:, : synthetic.MAX_BOXES], drawn.target['box'] * (known >= 0)[..., None]
    )
    assert (drawn.target['box_class'] == 2).any()  # a platelet that was left out
    assert without_class(drawing) == "drawn 'platelet': no such class here, so they have no boxes"
