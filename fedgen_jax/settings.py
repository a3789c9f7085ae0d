"""What decides a run's result, whether it can be, and whether a run of other settings goes on."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from fedgen_jax.algorithms import ALGORITHMS, follows_rounds
from fedgen_jax.config import base
from fedgen_jax.registry import check_counts


def settings_of(config: ConfigDict) -> dict[str, Any]:
    """All that decides a run's result, as JSON.

    The configuration but for where its data and secrets lie, where its scores are shown too, how
    clients are spread over devices, which only rounds otherwise, and the fields of other
    algorithms.
    """
    values = config.to_dict()
    used = {config.algorithm, config.fedgen.base} if config.algorithm == 'fedgen' else {
        config.algorithm
    }
    if used <= set(ALGORITHMS):  # one of a file of the user's may read any field
        values = {k: v for k, v in values.items() if k in used or k not in ALGORITHMS}
    for field in ('devices', 'client_map', 'tracker'):
        values.pop(field, None)
    where = ('root', 'cache', 'images', 'features')
    values['data'] = {k: v for k, v in values['data'].items() if k not in where}
    for field in ('secrets', 'discreet'):
        values['privacy'].pop(field, None)
    return json.loads(json.dumps(values, default=list))


SHARES = (
    'max_left_out', 'shifts.probability', 'fedgen.pooled', 'fedgen.base_share', 'fedgen.stranger'
)


def flat_settings(settings: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """{'group.field': value} of nested settings."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat_settings(value, f'{prefix}{name}.')
        else:
            found[prefix + name] = value
    return found


def check_numbers(c: ConfigDict) -> None:
    """Raises ValueError where a field is a number that no run can have."""
    check_counts(
        '', c, 'rounds', 'local_steps', 'batch_size', 'eval_every', 'checkpoint_every'
    )
    check_counts('data', c.data, 'image_size', 'centers', 'examples')
    check_counts('model', c.model, *(name for name in ('depth',) if name in c.model))
    value_of, defaults = dict(_numbers(c)), dict(_numbers(base()))
    for field, value in value_of.items():
        # Where less than 0 has a meaning, it is the default.
        if value < 0 <= defaults.get(field, 0):
            raise ValueError(f'{field}={value}: at least 0')
    for field in SHARES:
        if value_of.get(field, 0) > 1:
            raise ValueError(f'{field}={value_of[field]}: from 0 to 1')
    for side in ('client', 'server'):
        if c[side].momentum >= 1:
            raise ValueError(f'{side}.momentum={c[side].momentum}: from 0 to below 1')
    if c.shifts.zoom < 1:
        raise ValueError(f'shifts.zoom={c.shifts.zoom}: at least 1')


def _numbers(c: Mapping[str, Any], group: str = '') -> Iterator[tuple[str, float]]:
    """(field, value) of all that are numbers."""
    for name, value in c.items():
        if isinstance(value, Mapping | ConfigDict):
            yield from _numbers(value, f'{group}{name}.')
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f'{group}{name}', value


def name_of(c: ConfigDict) -> str:
    """A run's name among others."""
    held_out = f'held out {c.data.held_out}' if c.data.held_out else 'none held out'
    return f'{c.method or c.algorithm}, {held_out}, seed {c.seed}'


ANEW = (
    'a new one can start from it: --config.start.weights=THIS_RUN --config.start.generator=True'
)
AFTERWARDS = ('adapt', 'finetune', 'oracle', 'score_size')  # a finished run is scored again


def refusal(made: dict, now: dict, defaults: dict) -> str:
    """Why a run of settings `made` cannot go on with those of `now`; '' if it can.

    It can with the same ones, with other ones of what is done after the rounds, and with more
    rounds if nothing of those that are done depends on their number.
    """
    of_rounds = (
        {k: v for k, v in x.items() if k not in AFTERWARDS} for x in (made, now, defaults)
    )
    found = differences(*of_rounds)  # type: ignore[arg-type]  # three of them
    longer = now['rounds'] > (ended := made.get('rounds', now['rounds']))
    schedule, were = now['client']['schedule'], tuple(made['client'].get('restarts', ()))
    anew = longer and schedule == 'cosine' and tuple(now['client']['restarts']) == (*were, ended)
    longer &= len(found) == 1 + anew
    if longer and now['server'].get('average'):
        return (
            f'{found[0]}: with server.average the last round has left the mean of the last ones, '
            f'so such a run cannot be made longer; {ANEW}'
        )
    if longer and follows_rounds(now['algorithm']):
        return (
            f'{found[0]}: algorithm={now["algorithm"]!r} steps by their number from the first one '
            f'on, so such a run cannot be made longer; {ANEW}'
        )
    if not found or longer and (anew or schedule == 'constant'):
        return ''
    if longer:
        return (
            f'{found[0]}: with client.schedule={schedule!r} the rate follows their number: '
            f'let it begin anew, by --config.client.restarts="{(*were, ended)}"'
        )
    return found[0]


def differences(made: dict, now: dict, defaults: dict, prefix: str = '') -> list[str]:
    """'client.lr=0.1, now 0.2' for each field in which two `settings_of` differ.

    A field that `made` lacks is younger than the run, which had what is now its default.
    """
    found = []
    for name, value in now.items():
        default = defaults.get(name)
        was = made.get(name, default)
        if isinstance(value, dict):
            found += differences(was or {}, value, default or {}, f'{prefix}{name}.')
        elif was != value:
            found.append(f'{prefix}{name}={was!r}, now {value!r}')
    return found
