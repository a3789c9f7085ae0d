"""What decides a run's result, and whether a run of other settings can go on from it."""

import json
from typing import Any

from ml_collections import ConfigDict

from fedgen_jax.algorithms import ALGORITHMS, follows_rounds


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
    where = ('root', 'cache', 'images')
    values['data'] = {k: v for k, v in values['data'].items() if k not in where}
    values['privacy'].pop('secrets', None)
    return json.loads(json.dumps(values, default=list))


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
