"""At which size masks are scored: the images' own, as their files have them, or the model's."""

from collections.abc import Iterable, Iterator

from ml_collections import ConfigDict

from fedgen_jax.data.examples import Center, Original
from fedgen_jax.data.originals import in_own_pixels, read_mask, spacing_of
from fedgen_jax.registry import choose
from fedgen_jax.schema import Resolution
from fedgen_jax.tasks.base import Predicted, Task

SIZES = ('own', 'model')  # of `score_size`


def resolution_of(c: ConfigDict, task: Task, centers: Iterable[Center]) -> Resolution | None:
    """At which size a run's images are scored, and why not their own; None without masks.

    All its images are scored at one of the two.
    """
    if task.target != 'mask':
        return None
    size, why = choose('score_size', c.score_size, SIZES), ''
    if size == 'model':
        why = 'score_size=model'
    elif task.measure is None:
        size, why = 'model', f'task={task.name!r} has no `measure`'
    elif not all(center.original for center in centers):
        size, why = 'model', 'the masks are no files of their own'
    return {'size': size, 'pixels': c.data.image_size, 'why': why}


def is_own(resolution: Resolution | None) -> bool:
    """Whether masks are scored at the images' own size."""
    return resolution is not None and resolution['size'] == 'own'


def at_own_size(found: Predicted, task: Task) -> Predicted:
    """Predictions in place of which stands what was measured of them, each at its image's own size.

    One mask is in memory at a time.  What `found` has been measured of comes back as it is.

    Raises ValueError where a file cannot be read.
    """
    if task.measure is None or 'measured' in found.predictions:
        return found
    return found._replace(predictions=task.measure(_images(found)))


def _images(found: Predicted) -> Iterator[tuple[dict, dict, tuple[float, ...]]]:
    """(prediction, target, spacing) of one image after the other."""
    for i, original in enumerate(found.original):
        said, truth = found.predictions['mask'][i], found.examples.target['mask'][i]
        if not original.mask:  # nothing is known of it
            yield {'mask': said}, {'mask': truth}, ()
            continue
        yield _image(said, original)


def _image(mask_SxS, original: Original) -> tuple[dict, dict, tuple[float, ...]]:
    truth_HxW = read_mask(original)
    said_HxW = in_own_pixels(mask_SxS, original, truth_HxW.shape)
    return {'mask': said_HxW}, {'mask': truth_HxW}, spacing_of(original)
