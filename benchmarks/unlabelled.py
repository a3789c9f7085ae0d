"""How many unlabelled images a new center needs: scores of finished runs, by their number.

    python -m benchmarks.unlabelled RUN ...

A row a number of images: FedGen's models of unseen centers and its base's, made from so many images
of one half of a center's patients and scored on the other half, and both after `--steps` without
labels.  The images give all that a model is made from: the descriptor, the batch statistics and
the canonical input.  The last row has all images of a half.  `--draws` subsets a half are drawn,
the same for all models.
"""

import zlib

import numpy as np
from absl import app, flags, logging

from fedgen_jax.answers import finished
from fedgen_jax.data.examples import Center, Examples, take
from fedgen_jax.evaluate import block, cross_fitted, metrics_of, model_of
from fedgen_jax.newcomer import adapted_model
from fedgen_jax.report.tables import markdown
from fedgen_jax.run import Trained

NUMBERS = (1, 2, 5, 10, 20, 50)
STEPS = flags.DEFINE_integer('steps', 20, 'without labels, of the adapted models')
DRAWS = flags.DEFINE_integer('draws', 3, 'subsets of a half')


def few(images: Examples, number: int | None, name: str, draw: int) -> Examples:
    """`number` of the images, drawn; None: all of them."""
    real_N = np.flatnonzero(images.weight)
    if number is None:
        return take(images, real_N)
    rng = np.random.default_rng((zlib.crc32(name.encode()), len(real_N), draw))
    return take(images, rng.permutation(real_N)[:number])


def mean_over_centers(trained: Trained, make, number: int | None, draw: int) -> float:
    """The metric of the task that choices go by, at unseen centers, in points of 100."""
    def of(center: Center):
        def from_few(images):
            return make(trained, few(images, number, center.name, draw))
        return metrics_of(trained, cross_fitted(trained, center, 'test', from_few))

    found = block(trained, {center.name: of(center) for center in trained.unseen})
    assert found is not None
    return 100 * found['mean'][trained.program.task.headline]


def rows_of(workdir: str) -> dict[int | None, list[float]]:
    """{number of images: FedGen, its base, both adapted}, each a mean over draws."""
    _, generated = finished(workdir)
    assert generated.program.base, f'{workdir}: no run of FedGen above a base'
    below = generated._replace(program=generated.program.base)

    def adapted(trained, images):
        return adapted_model(trained, images, STEPS.value)[0]

    columns = [(x, make) for make in (model_of, adapted) for x in (generated, below)]
    return {
        number: [
            float(np.mean([
                mean_over_centers(trained, make, number, draw)
                for draw in range(1 if number is None else DRAWS.value)
            ])) for trained, make in columns
        ] for number in (*NUMBERS, None)
    }


def main(argv):
    logging.set_verbosity(logging.WARNING)
    runs = [rows_of(workdir) for workdir in argv[1:]]
    names = ('images', 'FedGen', 'its base', 'FedGen, adapted', 'base, adapted')
    print(markdown(names, (
        [str(number or 'all of a half'), *(
            ' / '.join(f'{x:.1f}' for x in of_runs)
            for of_runs in zip(*(run[number] for run in runs))
        )] for number in runs[0]
    )))


if __name__ == '__main__':
    app.run(main)
