"""A deployed run over Flower's own network: a SuperLink and three SuperNodes on the loopback.

`make test-flower` makes Flower's environment and runs these.
"""

import json
import os
import time

import jax
import numpy as np
import pytest
from flower_network import Network
from hospitals import NAMES, NEW, hospitals, simulated, tiny
from keys import node_key
from rolling import assert_close

from fedgen_jax.deploy.secured import new_identity
from fedgen_jax.files import write_json
from fedgen_jax.onboard import onboard
from fedgen_jax.run import restore
from fedgen_jax.statistics import read_statistics
from fedgen_jax.train import train

FLOWER = os.environ.get('FEDGEN_FLOWER_PYTHON')
pytestmark = [
    pytest.mark.flower,
    pytest.mark.skipif(not FLOWER, reason='FEDGEN_FLOWER_PYTHON names no Python with Flower'),
]


@pytest.fixture
def network(tmp_path, request):
    """One that runs; over TLS where the test's case is so."""
    case = getattr(request.node, 'callspec', None)
    network = Network(FLOWER, tmp_path, secure=bool(case) and case.params['case'] == 'tls')
    network.superlink()
    yield network
    network.close()


def largest_difference(a, b):
    """Relative to the largest number of each array."""
    def of(x, y):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        return np.abs(x - y).max() / max(np.abs(y).max(), 1e-30)

    return max(jax.tree.leaves(jax.tree.map(of, a, b)))


def refuses_strangers(network, folder):
    """A node is not let in whose key the server does not have, nor one that speaks without TLS."""
    private, _ = node_key(folder, 'stranger')
    network.node(
        'stranger', folder, '--root-certificates', network.tls['ca'],
        '--auth-supernode-private-key', private,
    )
    network.wait_for_text('stranger-node', 'Failed to activate SuperNode')
    network.node('plain', folder, '--insecure', '--max-retries', 1)
    network.wait_for_text('plain-node', 'could not establish')
    assert 'SuperNode ID' not in network.logs_of('stranger-node', 'plain-node')


@pytest.mark.parametrize('case', ['fedavg', 'fedgen', 'masked', 'tls'])
def test_a_run_over_flower_is_the_simulated_one(case, network, tmp_path, drawn_hospitals):
    algorithm, masked = 'fedgen' if case == 'fedgen' else 'fedavg', []
    config = tiny(algorithm, tmp_path / 'store')
    config.rounds = 2 if case == 'masked' else 3
    if case == 'fedgen':
        config.input.canonical = 'brightfield'
    if case == 'masked':
        config.secure.on, config.privacy.seed = True, '0'  # of the simulation's identities
        masked = [f'--identities={tmp_path / "identities.json"}']
        write_json(tmp_path / 'identities.json', {
            n: new_identity(tmp_path / n).hex() for n in NAMES
        })
    h = hospitals(drawn_hospitals, config, tmp_path)
    for name in NAMES:
        network.center(name, h.settings, h.own[name], tmp_path / name, *masked)
    if case == 'tls':
        refuses_strangers(network, tmp_path)
    begun = time.monotonic()
    code, told = network.serve(
        tmp_path / 'run', f'--settings={h.settings}', f'--centers={",".join(NAMES)}', *masked,
        seconds=900,
    )
    assert code == 0, told + network.logs()
    seconds = time.monotonic() - begun
    summary = train(simulated(config, h.root), tmp_path / 'sim', progress=False)
    sim, run = (restore(tmp_path / x) for x in ('sim', 'run'))
    report = json.loads((tmp_path / 'run' / 'deployed.json').read_text())
    print(
        f'\n{case}: largest difference {largest_difference(run.state, sim.state):.3g}, '
        f'{report["round_seconds"]:.1f} s a round, {seconds:.0f} s in all, '
        f'{report["bytes_up"]} bytes up and {report["bytes_down"]} down'
    )
    assert_close(run.state, sim.state)
    assert report['seen']['centers'] == summary['seen']['centers']
    if algorithm == 'fedavg':
        return

    network.center(NEW, h.settings, h.own[NEW], tmp_path / NEW, '--wish=join')
    code, told = network.serve(tmp_path / 'run', '--change')
    assert code == 0 and f'joined: {NEW}' in told, told + network.logs()
    onboard(tmp_path / 'sim', str(h.own[NEW]))
    own = read_statistics(tmp_path / 'sim').own
    for name, s in read_statistics(tmp_path / 'run').own.items():
        np.testing.assert_allclose(s.total, own[name].total, rtol=1e-5, atol=2)
    assert (tmp_path / NEW / 'model').is_dir()


def test_a_run_goes_on_without_a_hospital_that_is_away(network, tmp_path, drawn_hospitals):
    config = tiny('fedavg', tmp_path / 'store')
    config.rounds = 4
    h = hospitals(drawn_hospitals, config, tmp_path)
    for name in NAMES:
        node = network.center(name, h.settings, h.own[name], tmp_path / name)
    # The last hospital's process with the images ends once the first round is done; its node stays.
    server = network.begin_serving(
        tmp_path / 'run', f'--settings={h.settings}', f'--centers={",".join(NAMES)}'
    )
    network.wait_for_text('server', 'round 1 of 4: 3 of 3 centers')
    network.stop(network.process[NAMES[-1]])
    network.wait_for_text('server', 'round 4 of 4: 2 of 3 centers')
    code = server.wait(120)
    told = (tmp_path / 'server.log').read_text()
    assert 'launch.center is not running' in told
    assert f'{NAMES[-1]} is left out' in told
    assert code != 0 and 'once it is right, run again to finish' in told  # it has no model yet
    assert node.poll() is None
    network.center_process(NAMES[-1], h.settings, h.own[NAMES[-1]], tmp_path / NAMES[-1])
    code, told = network.serve(
        tmp_path / 'run', f'--settings={h.settings}', f'--centers={",".join(NAMES)}'
    )
    assert code == 0, told
    assert (tmp_path / NAMES[-1] / 'model').is_dir()
