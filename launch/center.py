"""A center of a deployed federation: answers the server, from its own folder (docs/deploy.md).

python -m launch.center --settings=FILE --data=FOLDER --site=SITE                trains
python -m launch.center --settings=FILE --data=FOLDER --site=SITE --wish=join    joins afterwards

Flower's SuperNode beside it, --node-config 'site="SITE"' (or "SOCKET", where --socket names a
folder), reaches the network.  Other wishes are update (its images have changed) and leave.
--noscores: its scores stay with it.
"""

import functools
import sys

from absl import flags

from fedgen_jax.deploy.center import WISHES, Site, answer, check_site
from fedgen_jax.deploy.pipe import answer_all, listening
from fedgen_jax.deploy.secured import new_identity
from fedgen_jax.files import expand
from launch import cli

_SETTINGS = flags.DEFINE_string('settings', None, 'the settings that all have (launch.agree)')
_DATA = flags.DEFINE_string('data', None, 'the folder of its images, with one center')
_COLUMNS = flags.DEFINE_string(
    'columns', None, "headers of its table, as data.columns; default: the settings'"
)
_SITE = flags.DEFINE_string('site', None, 'where its private state and its model lie')
_SOCKET = flags.DEFINE_string(
    'socket', None, 'the folder of the socket, for a SuperNode of another user; default: --site'
)
_WISH = flags.DEFINE_enum('wish', '', WISHES, 'what it asks of a trained run; empty: it trains')
_IDENTITIES = flags.DEFINE_string(
    'identities', None, "the file of all centers' identities, where secure.on"
)
_IDENTITY = flags.DEFINE_bool('identity', False, 'print its identity for that file, and end')
_SCORES = flags.DEFINE_bool('scores', True, 'whether the server hears its scores')


def main():
    if _IDENTITY.value:
        print(new_identity(expand(_SITE.value)).hex())
        return
    if not (_SETTINGS.value and _DATA.value):
        raise ValueError('--settings and --data are missing: what all agreed on, and its images')
    folders = (expand(x.value) for x in (_SETTINGS, _DATA, _SITE))
    listed = expand(_IDENTITIES.value) if _IDENTITIES.value else None
    site = Site(*folders, _WISH.value, _SCORES.value, listed, _COLUMNS.value)
    name = check_site(site)
    with listening(expand(_SOCKET.value) if _SOCKET.value else site.folder) as listener:
        print(f'{name}: waits for requests', flush=True)
        try:
            answer_all(listener, functools.partial(answer, site))
        except KeyboardInterrupt:
            sys.exit(0)


if __name__ == '__main__':
    flags.mark_flag_as_required('site')
    cli.run(main)
