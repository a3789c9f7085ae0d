"""Summaries of many runs: read from folders or JSON lines, and written as JSON lines."""

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from fedgen_jax import renamed
from fedgen_jax.algorithms import ALGORITHMS
from fedgen_jax.config import base
from fedgen_jax.files import read_json
from fedgen_jax.schema import OF_ONE_MODEL, Groups, Summary
from fedgen_jax.settings import flat_settings

BASE_ALONE = ': base alone'  # after a method's name: its base, in a row of its own
_OWN = 'own'  # in a line: a center model that is the run's own models
# Fields in which a row's runs differ.
_FREE = {'method', 'seed', 'data.held_out', 'devices', 'client_map'}
_DECIMALS = 6  # of scores and seconds in a line


def read_summaries(
    paths: Sequence[str | pathlib.Path], order: Sequence[str] = ()
) -> list[Summary]:
    """Every `summary.json` below the folders, and the runs of `.jsonl` files.

    order: names of methods; runs from folders come in this order, those of a file in its own.

    Raises ValueError, in one line, where a file is none of these, and where the runs are of two
    tasks, scored on two splits or at two sizes, or cannot be told apart.
    """
    found = [s for path in paths for s in _read(pathlib.Path(path), order)]
    where = ', '.join(map(str, paths))
    for field in ('task', 'score_on'):
        values = sorted({s[field] for s in found})
        if len(values) > 1:
            raise ValueError(
                f'{where}: {field} is {" and ".join(values)}: a table takes runs of one kind: '
                'name the folders of one'
            )
    check_sizes(found, where)
    _check_rows(found, where)
    return found


def check_sizes(summaries: Iterable[Summary], where: str) -> None:
    """Raises ValueError where the masks of some runs were scored at another size than others'."""
    sizes = {s['resolution']['size'] for s in summaries if s['resolution']}
    if len(sizes) > 1:
        raise ValueError(
            f"{where}: masks are scored at the images' own size in some runs and at the model's in "
            'others: run launch.train again in one kind, with --config.score_size=model or own'
        )


def base_of(summary: Summary) -> Summary:
    """The summary of the base alone, of a run that refines one: same data, seeds and add-ons."""
    base = dict(summary['base'])
    timing = {'round_seconds': None, 'compile_seconds': None}
    of_refined = ('base', 'own', 'finetuned', 'oracle', 'adapted')
    kept = {k: v for k, v in summary.items() if k not in of_refined}
    method = summary['method'] + BASE_ALONE
    return cast(Summary, {**kept, **base, 'method': method, 'cost': {**timing, **base['cost']}})


def checked(summary: Mapping[str, Any], file: pathlib.Path) -> Summary:
    """A summary that was read, in today's names.

    Raises ValueError, which names the file, where it lacks what tables and pages are made of.
    """
    needed = {
        'method': str, 'held_out': str, 'seed': int, 'task': str, 'score_on': str, 'config': dict,
        'algorithm': str, 'cost': dict, 'seen': dict,
    }
    for field, kind in needed.items():
        if not isinstance(summary.get(field), kind):
            raise ValueError(f'{file}: not a summary of launch.train: no {field}')
    for group, fields in (('seen', ('mean', 'centers')), ('cost', ('bytes_up', 'parameters'))):
        for field in fields:
            if field not in summary[group]:
                raise ValueError(f'{file}: not a summary of launch.train: no {group}.{field}')
    return cast(Summary, summary)


def in_order(summaries: Iterable[Summary], order: Sequence[str]) -> list[Summary]:
    """Runs in the order of their methods, a variant ('fedavg, half the rate') after its method."""

    def place(summary):
        of = [i for i, name in enumerate(order) if summary['method'].startswith(name)]
        return max(of, key=lambda i: len(order[i])) if of else len(order)

    def key(summary):
        return place(summary), summary['method'], summary['held_out'], summary['seed']

    return sorted(summaries, key=key)


def to_lines(summaries: Sequence[Summary]) -> str:
    """JSON lines: first what all runs share, then a line a run.  `from_lines` reads them.

    Confusions, calibration and the classes of each center are left out: no table has them, and they
    are two thirds of a summary.
    """
    short = [_short(s) for s in summaries]
    common = _common([{k: v for k, v in s.items() if not isinstance(v, dict)} for s in short])
    common['config'] = _common([s['config'] for s in short])
    lines = [{'runs': len(short), 'common': common}]
    for s in short:
        own = {k: v for k, v in s.items() if k not in common}
        config = {k: v for k, v in s['config'].items() if k not in common['config']}
        lines.append({**own, 'config': config})
    return ''.join(json.dumps(line, separators=(',', ':')) + '\n' for line in lines)


def from_lines(text: str) -> list[dict[str, Any]]:
    """The summaries of `to_lines`, their scores rounded."""
    head, *lines = (json.loads(line) for line in text.splitlines())
    if len(lines) != head['runs']:
        raise ValueError(f'{len(lines)} runs, the first line says {head["runs"]}')
    common = head['common']
    return [_long({**common, **x, 'config': {**common['config'], **x['config']}}) for x in lines]


def same_models(summary: Mapping[str, Any]) -> Groups:
    """The run's own scores, in the shape of its center model's."""

    def block(group):
        return group and {k: group[k] for k in ('mean', 'worst', 'centers')}

    return {'seen': block(summary['seen']), 'unseen': block(summary['unseen'])}


def center_model_of(summary: Summary) -> Groups | None:
    """The center model's scores; None where there is none, or it is the run's own model."""
    found = summary['center_model']
    return None if found == same_models(summary) else found


def _read(path, order):
    if path.suffix == '.jsonl':
        try:
            return [checked(renamed.summary(s), path) for s in from_lines(path.read_text())]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{path}: not a file of launch.summarize --to: {error}') from None
    files = sorted(path.rglob('summary.json'))
    if not files:
        raise ValueError(f'{path}: no summary.json below')
    # A private run holds the public run that it starts from.
    files = [x for x in files if not (
        x.parent != path and x.parent.name == 'public' and (x.parents[1] / 'summary.json').is_file()
    )]
    found = []
    for file in files:
        try:
            found.append(checked(renamed.summary(read_json(file)), file))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f'{file}: not a summary of launch.train: {error!r}') from None
    return in_order(found, order)


def _check_rows(summaries, where):
    """The runs of a method differ in held-out centers and seed, and in nothing else.

    Where a center's trial was chosen by inner runs, those of one center and trial do.
    """
    names, known, trials = set(), dict[str, dict](), dict[tuple, str]()
    default = flat_settings(base().to_dict())  # of fields that there were not when a run was made
    for s in summaries:
        name = s['method'], s['held_out'], s['seed']
        if name in names:
            raise ValueError(
                f'{where}: two runs have method={name[0]!r}, data.held_out={name[1]!r} and '
                f'seed={name[2]}: a table cannot tell them apart: name each folder once, and '
                'give different runs different methods'
            )
        names.add(name)
        own = flat_settings(s['config'])
        trial = own.get('trial') or ''
        if trials.setdefault(name[:2], trial) != trial:
            raise ValueError(
                f'{where}: runs with method={name[0]!r} and data.held_out={name[1]!r} have '
                f'trial={trials[name[:2]]!r} and {trial!r}: they are seeds of one choice or none: '
                'run those of the earlier choice again'
            )
        row = f'{s["method"]}, {trial} at {s["held_out"]}' if trial else s['method']
        first = known.setdefault(row, {})
        of_others = ALGORITHMS.keys() - {s['algorithm'], own.get('fedgen.base')}
        if s['algorithm'] not in ALGORITHMS:  # of a file of the user's, which may read any field
            of_others = set()
        for field in (own.keys() | first.keys()) - _FREE:
            if field.split('.')[0] in of_others:  # settings of algorithms that did not run
                continue
            value = own.get(field, default.get(field))
            was = first.setdefault(field, value)
            if _listed(value) != _listed(was):
                raise ValueError(
                    f'{where}: runs with method={name[0]!r} have {field}={was!r} and '
                    f'{value!r}: give different runs different methods'
                )


def _listed(value):
    return list(value) if isinstance(value, tuple) else value


def _short(summary):
    settings = flat_settings(summary['config'])
    short = {**_rounded(_scores({**summary, 'config': None})), 'config': settings}
    if short.get('center_model') == same_models(short):
        short['center_model'] = _OWN
    return short


def _long(short):
    long = {**short, 'config': _nested(short['config'])}
    if long['center_model'] == _OWN:
        long['center_model'] = same_models(long)
    return long


def _common(dicts: Sequence[dict]) -> dict:
    first, *others = dicts
    return {k: v for k, v in first.items() if all(k in x and x[k] == v for x in others)}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DECIMALS)
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, (list, tuple)) else value


def _scores(tree: Any, of: str = '') -> Any:
    """What tables have of a summary.  of: whether the keys are centers' names, or of one center."""
    if not isinstance(tree, dict):
        return tree
    gone = {'': OF_ONE_MODEL, 'center': (*OF_ONE_MODEL, 'classes'), 'names': ()}[of]

    def below(key):
        if of == 'names':
            return 'center'
        return 'names' if key in ('centers', 'chosen') else of

    return {k: _scores(x, below(k)) for k, x in tree.items() if k not in gone}


def _nested(flat: dict) -> dict:
    settings: dict[str, Any] = {}
    for field, value in flat.items():
        *path, name = field.split('.')
        group = settings
        for part in path:
            group = group.setdefault(part, {})
        group[name] = value
    return settings
