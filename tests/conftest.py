"""Strict promotion, eight virtual devices, warnings as errors, and where the real images are."""

import os
import pathlib

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = (
    os.environ.get('XLA_FLAGS', '')
    + ' --xla_force_host_platform_device_count=8'
    + ' --xla_backend_optimization_level=0'  # compiling takes most of the tests' time
)

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='session')
def data_root():
    """The folder of the real multi-center sets; tests that need it skip where it is absent."""
    root = pathlib.Path(os.environ.get('FEDGEN_TEST_DATA', ROOT.parent / 'shared' / 'data'))
    if not root.is_dir():
        pytest.skip(f'no real images at {root}: set FEDGEN_TEST_DATA to their folder')
    return root
