"""The server of a deployed federation (docs/deploy.md).

python -m launch.serve --workdir=RUN --settings=FILE --centers=NAME,NAME,NAME    trains
python -m launch.serve --workdir=RUN --change       what connected centers wish of a trained run

Flower's run beside it, flwr run launch/flower --run-config 'server="RUN"', reaches the centers.
"""

import sys

from absl import flags

from fedgen_jax.deploy.change import change
from fedgen_jax.deploy.pipe import listening, net_over
from fedgen_jax.deploy.server import train
from fedgen_jax.deploy.terms import check_deployable, read_config
from fedgen_jax.files import expand
from fedgen_jax.run import check_is_run, names_in
from launch import cli

_WORKDIR = flags.DEFINE_string('workdir', None, 'where the run lives')
_SETTINGS = flags.DEFINE_string('settings', None, 'the settings that all have (launch.agree)')
_CENTERS = flags.DEFINE_string('centers', '', 'names of the centers that train, comma-separated')
_WAIT = flags.DEFINE_float('wait', 600.0, 'seconds for which all of them may take to connect')
_IDENTITIES = flags.DEFINE_string(
    'identities', None, "the file of all centers' identities, where secure.on"
)
_CHANGE = flags.DEFINE_bool('change', False, 'do what centers wish of a trained run')


def accepted(listener):
    """The connection of Flower's run; Ctrl-C before it ends the process, with nothing to save."""
    try:
        return listener.accept()
    except KeyboardInterrupt:
        sys.exit(0)


def main():
    workdir, names = expand(_WORKDIR.value), names_in(_CENTERS.value, ())
    if _CHANGE.value and (_SETTINGS.value or names):
        raise ValueError('--change takes neither --settings nor --centers: the run has them')
    if _CHANGE.value:
        check_is_run(workdir)
    else:
        if not (_SETTINGS.value and names):
            raise ValueError('--settings and --centers are missing: what all agreed on, and who')
        config = read_config(expand(_SETTINGS.value))
        check_deployable(config)
    with listening(workdir) as listener:
        print("waits for: flwr run launch/flower --run-config 'server=\"RUN\"'", flush=True)
        with accepted(listener) as pipe:
            if _CHANGE.value:
                told = change(workdir, net_over(pipe))
                for done in ('joined', 'updated', 'left'):
                    print(f'{done}: {", ".join(told[done]) or "nobody"}')
                print(f'written: {workdir}/changed.json')
            else:
                listed = expand(_IDENTITIES.value) if _IDENTITIES.value else None
                with cli.told_to_stop() as stop:
                    train(config, workdir, names, net_over(pipe), _WAIT.value, listed, stop)
                print(f'written: {workdir}/deployed.json')


if __name__ == '__main__':
    flags.mark_flag_as_required('workdir')
    cli.run(main)
