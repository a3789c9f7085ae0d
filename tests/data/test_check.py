"""What a person is told of a data set before a model learns from it."""


import launched
import numpy as np
import pytest

from fedgen_jax.data.check import look, tell
from fedgen_jax.data.examples import Center, Examples, Source
from fedgen_jax.data.source import load


def center(name, n=20, image=None, label=None, unit=None, split=None, **more):
    """A center of distinct noise with three classes in turn, unless told otherwise."""
    rng = np.random.default_rng(sum(map(ord, name)))
    image = rng.integers(0, 256, (n, 8, 8, 3), np.uint8) if image is None else image
    label = np.arange(n) % 3 if label is None else np.array(label)
    path = tuple(f'{name}/{i}.png' for i in range(n))
    split = np.arange(n) % 3 if split is None else np.array(split)
    examples = Examples(image, {'label': label.astype(np.int32)}, np.ones(n, np.float32))
    return Center(name, examples, split.astype(np.int8), path, unit or path, **more)


def notes(*centers, classes=('x', 'y', 'z'), flips=True):
    return look(Source(centers, classes, 'label'), flips).notes


def one(found, *said):
    """The one note, and that it says all this."""
    (note,) = found
    assert all(word in note for word in said) and len(note.splitlines()) == 1, note


def test_healthy_centers_say_nothing():
    assert notes(center('a'), center('b')) == ()


def test_facts():
    label = [0] * 10 + [1] * 9 + [-1]
    unit, size = ('p',) * 3 + tuple(map(str, range(17))), ('8 x 9',) * 19 + ('4 x 4',)
    split = [0] * 12 + [1] * 5 + [2] * 3
    c = center('a', label=label, split=split, size=size, unit=unit)
    (row,) = look(Source((c,), ('x', 'y', 'z'), 'label')).rows
    assert (row.images, row.patients, row.splits, row.classes) == (20, 18, (12, 5, 3), (10, 9, 0))
    assert row.sizes == (('8 x 9', 19), ('4 x 4', 1)) and row.alike == row.blank == 0
    assert row.grays[0] > 200


def test_few_grays():
    dark = center('dark')
    dark.examples.image[:] //= 32
    one(notes(center('a'), dark), "center 'dark' (8 of 256 grays, 0 to 7)", 'full range')


def test_copies_within_a_center():
    c = center('a', split=[0] * 20)
    c.examples.image[:4] = c.examples.image[4]
    found = notes(c, center('b'))
    assert any("center 'a' (5 of 20): images alike" in note for note in found)
    few = center('a')
    few.examples.image[3] = few.examples.image[0]  # both are for training
    assert notes(few) == ()


def test_copies_between_training_and_test():
    c = center('a')
    c.examples.image[2] = c.examples.image[0]
    one(notes(c, center('b')), "center 'a' (1)", 'equal training images')


def test_copies_between_centers():
    a, b = center('a'), center('b')
    b.examples.image[7] = a.examples.image[3]
    one(notes(a, b), '1 images', "'a/3.png' of 'a'", "'b/7.png' of 'b'")


def test_blank_images():
    a, b = center('a'), center('b')
    a.examples.image[:5] = 7
    b.examples.image[:2] = 7  # a few are no fault, nor copies
    one(notes(a, b), "center 'a' (5 of 20)", 'one color alone')


def test_classes():
    one(notes(center('a'), center('b', label=[0, 2] * 10)), "center 'b' (y)", 'no example')
    one(notes(center('a'), center('b', label=[1] * 20)), "center 'b' (y)", 'of one class')
    one(notes(center('a'), center('b', label=[-1] * 20)), "center 'b'", 'no label is known')
    one(notes(center('a'), classes=('x', 'y', 'z', 'w')), "class 'w'", 'at any center')


def test_patients_and_sizes():
    one(notes(center('a'), center('b', split=[0] * 20, unit=('p',) * 20)),
        "center 'b' (patient 'p', 20 images)", 'column patient')
    one(notes(center('a'), center('b', n=3)), "center 'b' (3 images)", 'fewer than 5')
    one(notes(center('a'), center('b', split=[0, 1] * 10)), "center 'b' (no test)", 'split')


def test_what_was_assumed_is_told_once_a_center():
    a = center('a', assumed=('turned',) * 7 + ('turned\nfirst page',) * 5 + ('',) * 8)
    found = notes(a, center('b', assumed=('turned',) * 20))
    assert len(found) == 2
    assert found[0] == "center 'a' (12 of 20 images), center 'b' (20 of 20 images): turned"
    assert found[1] == "center 'a' (5 of 20 images): first page"


@pytest.mark.parametrize(
    'classes',
    [
        ('left lung', 'right lung', 'heart'), ('LungLeft', 'x', 'y'), ('lung_L', 'lung_R', 'x'),
        ('LV', 'RV', 'myocardium'), ('kidney l', 'kidney r', 'x'), ('RIGHT', 'x', 'y'),
    ],
)
def test_sides_and_flips(classes):
    found = notes(center('a'), classes=classes)
    one(found, 'flips', repr(classes[0]))
    assert notes(center('a'), classes=classes, flips=False) == ()


@pytest.mark.parametrize(
    'classes', [('bright', 'upright', 'cleft'), ('L', 'M', 'S'), ('type L', 'x', 'y'),
                ('lice', 'rice', 'mice')],
)
def test_what_only_looks_like_sides(classes):
    assert notes(center('a'), classes=classes) == ()


def test_many_centers_are_one_line():
    found = notes(*(center(f'c{i:03d}', n=3) for i in range(200)))
    one([note for note in found if 'fewer than 5' in note], "'c000'", 'and 196 more')


def test_notes_are_told_once(capsys):
    source = Source((center('told', n=3),), ('x', 'y', 'z'), 'label')
    tell(source, flips=True)
    tell(source, flips=True)
    assert capsys.readouterr().err.count('\n') == len(look(source).notes) == 1


@pytest.mark.parametrize('target', ['label', 'mask', 'box'])
def test_images_on_disk_are_looked_at_alike(small_folder, target):
    found = [
        look(load(small_folder, 8, 0, small_folder / 'cache', target=target, images=images))
        for images in ('memory', 'disk')
    ]
    assert found[0] == found[1]
    assert all(row.sizes == (('12 x 10', 6),) and sum(row.classes) for row in found[0].rows)


def check(root, *args):
    return launched.call('launch.check', f'--data={root}', f'--cache={root}/cache', *args)


def test_the_command(small_folder, manifest_writer):
    rows = [
        {'image': f'images/{r:02d}.png', 'center': 'north' if r < 8 else 'south',
         'split': ('train', 'val', 'test')[r // 2 % 3], 'label': 'ab'[r % 2]}
        for r in range(2, 14)
    ]
    manifest_writer(small_folder, rows, ('image', 'center', 'split', 'label'))
    table = small_folder / 'list.csv'
    table.write_text((small_folder / 'manifest.csv').read_text().replace('label', 'dx'))
    options = ('--columns=label:dx', '--image_size=16', f'--cache={small_folder}/cache')
    code, out, _ = check(table, *options)
    assert code == 0 and 'note' not in out
    header, north, south = out.splitlines()
    assert header.split()[:4] == ['center', 'images', 'patients', 'train/val/test']
    assert north.startswith('north') and 'a 3, b 3' in south and '12 x 10' in south
    (small_folder / 'images/13.png').write_bytes((small_folder / 'images/02.png').read_bytes())
    code, out, _ = check(small_folder, '--task=detection')
    assert code == 1 and "'images/02.png' of 'north' and 'images/13.png' of 'south'" in out
    assert 'rbc 3, wbc 6' in out
    (small_folder / 'images/13.png').unlink()
    code, out, err = check(small_folder)
    assert code == 2 and err.count('\n') == 1 and 'row 13, field image' in err
