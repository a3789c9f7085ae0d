"""What a logistic regression of small gray images reaches: the least that a network must beat.

python -m benchmarks.pixel_means --data=FOLDER --held_out=CENTER[,CENTER...]

It is fitted on the training images of all other centers together, as 12 x 12 means of pixels, which
no federation could do, and scored like `launch.train`: on test images of those, and on all of the
held-out ones.
"""

import numpy as np
from absl import app, flags, logging
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fedgen_jax.data.examples import Examples, of_split
from fedgen_jax.data.source import load
from fedgen_jax.run import names_in

_DATA = flags.DEFINE_string('data', None, 'a folder, as launch.train takes it')
_HELD_OUT = flags.DEFINE_string('held_out', '', 'centers that are not learned from')
_SIZE = flags.DEFINE_integer('size', 12, 'means along a side')


def pixels(examples: Examples, size: int) -> np.ndarray:
    """float [N, size ** 2] in [0, 1]."""
    gray_NxHxW = np.asarray(examples.image[:]).mean(-1) / 255
    n = gray_NxHxW.shape[1] // size
    blocks = gray_NxHxW.reshape(len(gray_NxHxW), size, n, size, n)
    return blocks.mean((2, 4)).reshape(len(gray_NxHxW), -1)


def main(argv):
    del argv
    logging.set_verbosity(logging.WARNING)  # TFDS tells of the store
    size = _SIZE.value
    centers = load(_DATA.value, 8 * size, 0, target='label').centers
    held_out = names_in(_HELD_OUT.value, [c.name for c in centers])
    seen = [c for c in centers if c.name not in held_out]
    train = [of_split(c, 'train') for c in seen]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(
        np.concatenate([pixels(x, size) for x in train]),
        np.concatenate([x.target['label'] for x in train]),
    )
    scored = {c.name: of_split(c, 'test') if c in seen else c.examples for c in centers}
    score = {
        name: balanced_accuracy_score(x.target['label'], model.predict(pixels(x, size)))
        for name, x in scored.items()
    }
    for group, names in (('seen', [c.name for c in seen]), ('unseen', held_out)):
        if names:
            mean = np.mean([score[name] for name in names])
            each = ', '.join(f'{name} {score[name]:.3f}' for name in names)
            print(f'{group:<6} balanced accuracy {mean:.3f}  ({each})')


if __name__ == '__main__':
    flags.mark_flag_as_required('data')
    app.run(main)
