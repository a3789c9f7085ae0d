"""Strict promotion, eight virtual devices, quick compilations, and where the real images are."""

import gc
import importlib.metadata
import itertools
import os
import pathlib
import platform
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = (
    os.environ.get('XLA_FLAGS', '')
    + ' --xla_force_host_platform_device_count=8'
    + ' --xla_backend_optimization_level=0'  # compiling takes most of the tests' time
    + ' --xla_cpu_parallel_codegen_split_count=1'  # the workers share the cores already
)
if platform.machine() in ('x86_64', 'AMD64'):
    # Without fused multiply-adds, which each program places otherwise, equal formulas are equal to
    # the bit.
    os.environ['XLA_FLAGS'] += ' --xla_cpu_max_isa=AVX'
    if tuple(map(int, importlib.metadata.version('jaxlib').split('.')[:2])) <= (0, 10):
        # Older emitters, which later ones ended, compile in half the time.
        os.environ['XLA_FLAGS'] += ' --xla_cpu_use_fusion_emitters=false'

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_traceback_in_locations_limit', 0)  # which nobody reads; lowering is quicker

# Programs that several tests compile are compiled once, in a folder of this process alone: JAX's
# cache writes in place, so that another process could read half a program.
_compiled = tempfile.TemporaryDirectory(prefix='fedgen_jax-compiled-')
jax.config.update('jax_compilation_cache_dir', _compiled.name)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.05)

# Tracing makes many small objects that live long: by default Python searches them for cycles so
# often that this takes a quarter of it.
gc.freeze()
gc.set_threshold(100_000, 20, 50)

# Files that share what a folder's `conftest` makes, which takes a minute: one worker has them all.
TOGETHER = ('tests/budgets/',)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid):
            folder = [x for x in TOGETHER if nodeid.startswith(x)]
            return folder[0] if folder else super()._split_scope(nodeid)

    return ByFile(config, log)


ROOT = pathlib.Path(__file__).parent.parent


_files = itertools.count(1)


@pytest.fixture(scope='module', autouse=True)
def _programs_of_a_few_files():
    """A worker would keep the programs of all files, 5 GB in the end; some serve several files."""
    yield
    if next(_files) % 8 == 0:
        jax.clear_caches()
        gc.collect()


def pytest_unconfigure():
    _compiled.cleanup()


# These take longest: they begin first, so that no worker sits alone on one of them at the end.
LONG = (
    'test_private_runs', 'test_private_changes', 'test_survival', 'test_cluster',
    'test_secure_runs', 'test_dense_tasks', 'test_registry', 'test_residual', 'test_onboard',
    'test_newcomer', 'test_averaging', 'test_feed', 'test_deployed', 'test_masked', 'test_docs',
    'test_jobs', 'test_demo', 'test_adapted_runs', 'test_runs',
)


def pytest_collection_modifyitems(items):
    place = {name: i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))


@pytest.fixture(scope='session')
def data_root():
    """The folder of the real multi-center sets; tests that need it skip where it is absent."""
    root = pathlib.Path(os.environ.get('FEDGEN_TEST_DATA', ROOT.parent / 'shared' / 'data'))
    if not root.is_dir():
        pytest.skip(f'no real images at {root}: set FEDGEN_TEST_DATA to their folder')
    return root
