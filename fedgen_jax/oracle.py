"""How much there is to gain at an unseen center: a part of its weights fitted to its labels.

The weights that a generator may change, fitted to the labels of one half of the images and scored
on the other half, as the zero-shot score is.  It is no method, for a new center has no labels: what
it gains and a generated model does not is what descriptor and training still miss.
"""

import jax
from flax.traverse_util import flatten_dict

from fedgen_jax.data.examples import Center, pad, take
from fedgen_jax.evaluate import (
    Predicted,
    Scores,
    block,
    canonical,
    concatenate,
    cross_fits,
    metrics_of,
    model_of,
    predict_on,
    with_own_change,
)
from fedgen_jax.run import Trained

# The parts that are fitted, by the roles of their weights (`models.roles`), be they frozen in
# training or not; None: all that training moves.
PARTS = {
    'input': ('input',),
    'norms': ('norm',),
    'input and norms': ('input', 'norm'),
    'features': ('features',),
    'head': ('head',),
    'all': None,
}


def score_oracle(trained: Trained, split: str) -> dict[str, dict]:
    """{part: its block of the unseen centers}; {} where a stranger has no model.

    Parts of which the model has no weight are left out.
    """
    if not trained.program.algorithm.server_model or not trained.unseen:
        return {}
    there = {trained.program.role_of(path) for path in flatten_dict(trained.shared['theta'])}
    found = {
        part: {c.name: _scores(trained, c, split, roles) for c in trained.unseen}
        for part, roles in PARTS.items() if roles is None or there.issuperset(roles)
    }
    return {part: block(trained, centers) or {} for part, centers in found.items()}


def _scores(trained: Trained, center: Center, split: str, roles) -> Scores:
    parts: list[Predicted] = []
    for adapt, on in cross_fits(center, split):
        images = take(center.examples, adapt)
        begin = model_of(trained, images)
        padded = pad(canonical(trained, images, images), trained.length)
        variables = trained.program.fitted(
            begin['params'], padded, padded, trained.key, roles=roles
        )
        variables = with_own_change(trained, images, variables)
        parts.append(predict_on(trained, jax.device_get(variables), center, on))
    return metrics_of(trained, concatenate(parts)) if parts else {'n': 0}
