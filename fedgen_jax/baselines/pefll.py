"""PeFLL: an encoder of a client's labelled images, and a hypernetwork that makes its model.

References:
    Scott et al. 2024, PeFLL: Personalized federated learning by learning to learn, ICLR (algorithm
    1).

    v_c = standardized mean over (x, y) of e_psi(x, y),    theta_c = theta + H_phi(v_c)

The steps, the wire and what was chosen are those of `baselines.odpfl`, whose encoder sees images
alone.  Labels are planes beside the image's three, one a class, as in the authors' code: of a
class, 1 everywhere where it is the image's; of masks and boxes, which the paper has not, 1 where
the class's pixels or boxes are.  The authors' vectors are standardized by the first one's mean and
deviation, here each by its own.  Of the paper's three penalties, that on the generated weights is
`client.decay`, that on H is `pefll.decay`, and that on the encoder is left out.

A seen center's vector is of its training images and their labels.  An unseen center zero-shot has
no labels, and so the model of the mean vector of the last round, which is chosen here, for the
paper has none.  With labels it has the model of its own vector, made from these, and no further
steps.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.algorithms.draws import images_of
from fedgen_jax.algorithms.local import Local
from fedgen_jax.baselines import odpfl
from fedgen_jax.baselines.hypernetworks import hypernetwork_of
from fedgen_jax.models.unet import NUM_SHAPES
from fedgen_jax.tasks.base import Task


def defaults() -> ConfigDict:
    return odpfl.defaults()


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    own = c.pefll
    planes, draw = label_planes(local.task)

    def see(image, target):
        return jnp.concatenate([images_of(image), draw(target, *image.shape[:2])], -1)

    server, net = odpfl.server_of(c, own), hypernetwork_of('pefll', own, local)
    return odpfl.by_encoder(local, server, net, own, 'PeFLL', see, planes)


def label_planes(task: Task) -> tuple[int, Callable]:
    """(K, (one example's target, H, W) -> float [H, W, K], 1 where a class is).

    Of an unknown label all planes are 0.
    """
    k = task.num_outputs - (NUM_SHAPES if task.target == 'box' else 0)

    def of_label(target, height, width):
        return jnp.broadcast_to(jax.nn.one_hot(target['label'], k), (height, width, k))

    def of_labels(target, height, width):
        has_K = (target['labels'] > 0).astype(jnp.float32)
        return jnp.broadcast_to(has_K, (height, width, k))

    def of_mask(target, height, width):
        return jax.nn.one_hot(target['mask'].astype(jnp.int32), k)

    def of_boxes(target, height, width):
        y0, x0, y1, x1 = target['box'].T[:, :, None, None]
        y, x = (jnp.mgrid[:height, :width].astype(jnp.float32) + 0.5)[:, None]
        in_MxHxW = ((y0 <= y) & (y < y1) & (x0 <= x) & (x < x1)).astype(jnp.float32)
        class_MxK = jax.nn.one_hot(target['box_class'], k)
        return (in_MxHxW[..., None] * class_MxK[:, None, None]).max(0)

    known = {'label': of_label, 'labels': of_labels, 'mask': of_mask, 'box': of_boxes}
    if task.target not in known:
        raise ValueError(
            f"algorithm='pefll': its encoder sees labels, of the targets {', '.join(known)}, and "
            f'task={task.name!r} has {task.target!r}: take odpfl, which sees images alone'
        )
    return k, known[task.target]
