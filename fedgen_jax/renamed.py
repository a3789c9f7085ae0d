"""What earlier versions wrote, in today's names: every change of a field is in this file.

A reader of `config.json` or `summary.json` passes what it reads through `config` or `summary`.
What today's version wrote comes back equal, so passing it twice does no harm.
"""

import copy
from collections.abc import Mapping
from typing import Any, cast

from fedgen_jax.schema import Summary

# A field that has gone, and today's fields that have its value.
RENAMED = {
    'shifts.plain': ('shifts.flips', 'shifts.turns'),
    'hypernet': ('fedgen',),
    'local': ('fedgen.local',),
    'server.generator_lr': ('fedgen.generator_lr',),
    'server.descriptor_lr': ('fedgen.descriptor_lr',),
}

# Names of algorithms that have changed.
ALGORITHMS = {'local': 'local_only'}

# A field that runs were once made without, and the value that they had in effect.
ADDED = {
    'max_left_out': 0.5,
    'data.virtual': 0,
    'data.virtual_share': -1.0,
    'data.virtual_examples': 0,
    'data.virtual_spread': -1.0,
    'data.virtual_classes': (),
    'data.images': 'memory',
    'data.columns': '',
    'data.cut': '',
    'data.window': '',
    'shifts.preset': 'brightfield',
    'fedgen.theta': 'joint',
    'input.canonical': 'none',
}

_EARLIER = 'an earlier version'

_TITLES = {'fedgen': 'FedGen', 'fedavg': 'FedAvg', 'local_only': 'Local only'}


def config(made: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run, as nested dicts, in today's field names."""
    now = copy.deepcopy(dict(made))
    for old, new in RENAMED.items():
        group, name = _find(now, old)
        if group is not None and name in group:
            value = group.pop(name)
            for field in new:
                _set_if_absent(now, field, value)
    fedgen = now.get('fedgen', {})
    if isinstance(fedgen.get('base'), (int, float)):  # once a share of episodes, now an algorithm
        fedgen['base_share'] = fedgen.pop('base')
    for field, value in ADDED.items():
        _set_if_absent(now, field, value)
    masks = now.get('task') == 'segmentation'  # they were scored at the model's size alone
    now.setdefault('score_size', 'model' if masks else 'own')
    if 'algorithm' in now:
        now['algorithm'] = ALGORITHMS.get(now['algorithm'], now['algorithm'])
    return now


def summary(made: Mapping[str, Any]) -> Summary:
    """A run's summary in today's field names."""
    now: dict[str, Any] = {**made, 'config': config(made['config'])}
    now['algorithm'] = ALGORITHMS.get(now['algorithm'], now['algorithm'])
    now.pop('local', None)  # it stands in the settings too
    now.setdefault('privacy', {})
    if 'title' not in now:
        now['title'] = _title(now)
    now.setdefault('headline', '')  # their first metric
    # All metrics of which less was better were lengths.
    now.setdefault('units', dict.fromkeys(now['lower_is_better'], 'pixels'))
    if 'resolution' not in now:
        size, masks = now['config']['data']['image_size'], now['task'] == 'segmentation'
        now['resolution'] = {'size': 'model', 'pixels': size, 'why': _EARLIER} if masks else None
    now.setdefault('at_unseen', [])
    now.setdefault('sum_only', True)  # there were no others
    now.setdefault('server_model', now['algorithm'] != 'local_only')
    now['controls'] = {'sampled': None, **now['controls']}
    if now.get('finetuned'):  # unseen centers have no labels: theirs repeated `unseen`
        now['finetuned'] = {'seen': now['finetuned']['seen']}
    sizes = now['cost']['parameters']
    now['cost'] = {**now['cost'], 'parameters': {k: n for k, n in sizes.items() if n}}
    return cast(Summary, now)


def _title(summary):
    shifts = summary['config'].get('shifts', {})
    shifted = shifts.get('acquisition', 0) > 0 or shifts.get('zoom', 1) > 1
    plain = summary['algorithm'] == 'fedgen' or not shifted  # of FedGen, shifts are a part
    return _TITLES[summary['algorithm']] + ('' if plain else ' + shifts')


def _find(settings, field):
    """The dict that holds a dotted field, or None, and the field's last name."""
    *path, name = field.split('.')
    for part in path:
        settings = settings.get(part)
        if settings is None:
            return None, name
    return settings, name


def _set_if_absent(settings, field, value):
    group, name = _find(settings, field)
    if group is not None:
        group.setdefault(name, value)
