"""What each shift costs: microseconds an image, inside a jitted batch.

    taskset -c 0 python -m benchmarks.shifts --size=48 --batch=32
"""

import time

import jax
from absl import app, flags

from fedgen_jax import shifts

SIZE = flags.DEFINE_integer('size', 48, 'height and width of an image, in pixels')
BATCH = flags.DEFINE_integer('batch', 32, 'images of a virtual center')
CENTERS = flags.DEFINE_integer('centers', 1, 'virtual centers, mapped outside the batch')
REPEATS = flags.DEFINE_integer('repeats', 10, 'calls a timing; the best of five timings counts')


def microseconds(shift, size, batch, centers, repeats):
    """The best time of a call, divided by its images; sampling the params is included."""
    key = jax.random.key(0)
    images = jax.random.uniform(key, (centers, batch, size, size, 3))

    @jax.jit
    @jax.vmap
    def call(key, images):
        k1, k2 = jax.random.split(key)
        return shifts.apply_batch(shift, shift.sample(k1), k2, images, {})[0]

    keys = jax.random.split(key, centers)
    call(keys, images).block_until_ready()
    best = float('inf')
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(repeats):
            result = call(keys, images)
        result.block_until_ready()
        best = min(best, (time.perf_counter() - start) / repeats)
    return 1e6 * best / (batch * centers)


def main(_):
    size = SIZE.value
    reference = shifts.amplitude(jax.random.uniform(jax.random.key(1), (size, size, 3)))[None]
    each = [
        shifts.gamma, shifts.brightness, shifts.contrast, shifts.color_matrix, shifts.hed_stain,
        shifts.bias_field, shifts.low_frequency, lambda: shifts.amplitude_mix(reference),
        shifts.magnification, shifts.blur, shifts.resolution, shifts.lens, shifts.gaussian,
        shifts.poisson, shifts.sensor, shifts.rician, shifts.flip, shifts.quarter_turns,
        shifts.rotation, shifts.plain, *shifts.PRESETS.values(),
        lambda: shifts.chain(shifts.PRESETS['brightfield'](), shifts.plain()),
    ]
    names = {7: 'amplitude_mix', len(each) - 1: 'brightfield + plain'}
    print(f'{"shift":<20} us/image   ({size}x{size}, batch {BATCH.value}, '
          f'{CENTERS.value} center(s), {jax.devices()[0].device_kind})')
    for i, make in enumerate(each):
        cost = microseconds(make(), size, BATCH.value, CENTERS.value, REPEATS.value)
        print(f'{names.get(i) or make.__name__:<20} {cost:8.1f}', flush=True)


if __name__ == '__main__':
    app.run(main)
