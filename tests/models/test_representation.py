"""What a head reads is found in models that say themselves what their weights are."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fedgen_jax.models.representation import with_representation


class WithRoles(nn.Module):
    def roles(self, path):
        return {'body': 'kernel', 'answer': 'head'}[path[0]]

    @nn.compact
    def __call__(self, x_BxI):
        return nn.Dense(2, name='answer')(nn.Dense(3, name='body')(x_BxI))


def test_a_head_is_found_where_the_roles_are_a_method_of_the_model():
    model, x_BxI = WithRoles(), jnp.ones((4, 5))
    variables = model.init(jax.random.key(0), x_BxI)
    params = variables['params']
    out, z_BxJ = with_representation(
        model, params, lambda: model.apply(variables, x_BxI), lambda z: 2 * z
    )
    params = jax.device_get(params)
    body_BxJ = np.ones((4, 5)) @ params['body']['kernel'] + params['body']['bias']
    np.testing.assert_allclose(z_BxJ, 2 * body_BxJ, rtol=1e-5)
    expected = np.asarray(z_BxJ) @ params['answer']['kernel']
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
