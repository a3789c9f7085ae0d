"""What server and centers agree on before anything is sent, and what cannot be deployed."""

import importlib.metadata
import json
import pathlib

from ml_collections import ConfigDict

from fedgen_jax.algorithms import pools
from fedgen_jax.config import base, complete
from fedgen_jax.data.examples import SPLITS
from fedgen_jax.files import read_json
from fedgen_jax.registry import choose
from fedgen_jax.resolution import SIZES
from fedgen_jax.settings import check_numbers, differences, settings_of
from fedgen_jax.start import content_of


class Refused(ValueError):
    """A refusal whose text tells nothing of a center's images, so that it may be sent."""


def read_config(file: pathlib.Path) -> ConfigDict:
    """The settings in a file, as `launch.agree` writes it; what it lacks has its default.

    Raises ValueError where it cannot be read, or names a field that there is not.
    """
    made = read_json(file)
    if not isinstance(made, dict):
        raise ValueError(f'{file}: is no JSON object: write it with launch.agree')
    known = base()
    for name, value in made.items():
        group = known.get(name)
        if isinstance(group, ConfigDict) and not isinstance(value, dict):
            raise ValueError(f'{file}: {name}={value!r}: has fields of its own, {{"FIELD": VALUE}}')
        fields = value if isinstance(group, ConfigDict) and name != 'model' else ()
        unknown = [f'{name}.{x}' for x in fields if x not in group] if name in known else [name]
        if unknown:
            raise ValueError(f'{file}: there is no field {unknown[0]}')
    try:
        config = complete(made)
    except (AttributeError, TypeError) as error:
        raise ValueError(f'{file}: {" ".join(str(error).split())}') from error
    config.devices = 1
    return config


def terms_of(config: ConfigDict) -> dict:
    """All that decides a run's result, as JSON, with the content of the weights it starts from.

    Code is told by its release alone: what two checkouts of one release do, nobody compares.
    """
    return {
        **settings_of(config), 'start_content': content_of(config.start.weights),
        'release': importlib.metadata.version('fedgen_jax'),
    }


def check_terms(config: ConfigDict, asked: dict) -> None:
    """Raises Refused where a center's settings are not the server's."""
    own, defaults = terms_of(config), json.loads(json.dumps(base().to_dict(), default=list))
    if found := differences(own, asked, own):
        raise Refused(f"the center's settings differ from the server's: {found[0]} (at the server)")
    if missing := differences(asked, own, defaults):
        raise Refused(
            f'the server knows no {missing[0].partition("=")[0]}, which the center has set: it '
            'runs an older release'
        )


def check_deployable(c: ConfigDict) -> None:
    """Raises ValueError where a setting has no meaning at all, or none between hospitals."""
    check_numbers(c)
    choose('score_on', c.score_on, SPLITS[1:])
    choose('score_size', c.score_size, SIZES)
    away = 'deployed: '
    if c.data.source != 'folder':
        raise ValueError(
            f'{away}data.source={c.data.source!r}: each center has a folder: data.source=folder'
        )
    if c.data.held_out:
        raise ValueError(
            f'{away}data.held_out={c.data.held_out!r}: who does not train may join afterwards: '
            'leave it empty'
        )
    if c.data.cut:
        raise ValueError(
            f'{away}data.cut={c.data.cut!r}: each center has images of its own: leave it empty'
        )
    if c.data.virtual or c.cohort:
        raise ValueError(
            f'{away}data.virtual={c.data.virtual}, cohort={c.cohort}: all centers take part in all '
            'rounds, and they alone: set both to 0'
        )
    if pools(c.algorithm):
        raise ValueError(
            f'{away}algorithm={c.algorithm!r}: would need the images of all centers in one place: '
            'name another'
        )
    if c.privacy.unit:
        raise ValueError(
            f'{away}privacy.unit={c.privacy.unit!r}: its noise and ledgers are kept by simulated '
            'runs alone; nothing is sent'
        )
    if c.secure.distributed_noise:
        raise ValueError(f'{away}secure.distributed_noise: of simulated runs alone: leave it out')
    for field in ('finetune', 'oracle', 'adapt'):
        if c[field].steps:
            raise ValueError(
                f'{away}{field}.steps={c[field].steps}: of simulated runs alone: set it to 0'
            )
    if c.finetune.choose or c.start.generator:
        raise ValueError(
            f'{away}finetune.choose, start.generator: are of simulated runs alone: leave them out'
        )


def without_afterwards(config: ConfigDict) -> tuple[ConfigDict, str]:
    """(the settings without what simulated runs alone do after the rounds; a note of it, or '')."""
    c = config.copy_and_resolve_references()
    c.data.root, c.finetune.choose = '', ()
    off = [field for field in ('finetune', 'oracle', 'adapt') if c[field].steps]
    for field in off:
        c[field].steps = 0
    names = ', '.join(f'{field}.steps' for field in off)
    return c, f'{names}: set to 0, for they are of simulated runs alone' if off else ''
