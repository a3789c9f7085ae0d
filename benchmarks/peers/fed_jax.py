"""FedJAX's federated averaging, by its own loop over clients.

Called by `benchmarks/speed.py`; prints {"seconds": [...], "first": ...}.
"""

import json
import sys
import time

import fedjax
import jax
import jax.numpy as jnp
import numpy as np
from fedjax.algorithms import fed_avg

jax.tree_map = jax.tree.map  # FedJAX 0.0.17 calls it by the name that JAX has since dropped


def conv(x, kernel, padding):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


def pool(x):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID')


def small_cnn(params, x):
    for kernel in params['conv']:
        x = pool(jax.nn.relu(conv(x, kernel, 'SAME')))
    return x.reshape(len(x), -1) @ params['head']


def lenet(params, x):
    for (kernel, bias), padding in zip(params['conv'], ('SAME', 'VALID')):
        x = pool(jax.nn.relu(conv(x, kernel, padding) + bias))
    x = x.reshape(len(x), -1)
    for kernel, bias in params['dense']:
        x = jax.nn.relu(x @ kernel + bias)
    kernel, bias = params['head']
    return x @ kernel + bias


def first_params(model):
    rng = np.random.default_rng(0)

    def normal(*shape):
        scale = np.prod(shape[:-1]) ** -0.5
        return jnp.asarray(rng.normal(0, scale, shape), jnp.float32)

    if model.endswith('LeNet'):
        return {
            'conv': [(normal(5, 5, 1, 6), jnp.zeros(6)), (normal(5, 5, 6, 16), jnp.zeros(16))],
            'dense': [(normal(400, 120), jnp.zeros(120)), (normal(120, 84), jnp.zeros(84))],
            'head': (normal(84, 10), jnp.zeros(10)),
        }
    sides = zip((3, 32, 64), (32, 64, 64))
    return {'conv': [normal(3, 3, i, o) for i, o in sides], 'head': normal(1024, 10)}


def main():
    work = json.loads(sys.argv[1])
    with np.load(work['arrays']) as file:
        image, label = file['image'].astype(np.float32) / 255, file['label']
    forward = lenet if work['model'].endswith('LeNet') else small_cnn

    def loss(params, batch, rng):
        del rng
        scores = jax.nn.log_softmax(forward(params, batch['x']))
        return -jnp.mean(jnp.take_along_axis(scores, batch['y'][:, None], 1))

    algorithm = fed_avg.federated_averaging(
        jax.grad(loss),
        fedjax.optimizers.sgd(work['rate']),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(
            batch_size=work['batch'], num_steps=work['steps'], num_epochs=None
        ),
    )
    clients = [
        (str(c), fedjax.ClientDataset({'x': image[c], 'y': label[c]}), jax.random.key(c))
        for c in range(len(label))
    ]
    state = algorithm.init(first_params(work['model']))
    seconds = []
    for _ in range(1 + work['rounds']):
        started = time.perf_counter()
        state, _ = algorithm.apply(state, clients)
        jax.block_until_ready(state.params)
        seconds.append(time.perf_counter() - started)
    print(json.dumps({'FedJAX': {'seconds': seconds[1:], 'first': seconds[0]}}))


if __name__ == '__main__':
    main()
