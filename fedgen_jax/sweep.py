"""Many runs in one process."""

import pathlib
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from fedgen_jax.data.check import say
from fedgen_jax.engine.processes import any_of, is_first
from fedgen_jax.federation import other_data, other_names
from fedgen_jax.files import expand, file_name, is_plain, read_json
from fedgen_jax.interrupt import Failed, MayPass, Stopped, disk_is_full
from fedgen_jax.registry import choose
from fedgen_jax.run import apart, is_discreet, load_source, names_in, read_federation, told_of
from fedgen_jax.schema import Summary
from fedgen_jax.settings import differences, flat_settings, name_of, refusal, settings_of
from fedgen_jax.train import prepare_to_train, train


def grid(methods: dict[str, dict], centers: Sequence[str], seeds: Sequence[int]) -> list[dict]:
    """Overrides of every method, held-out center and seed; runs of one program stand together."""
    return [
        {'method': name, 'data.held_out': center, 'seed': seed, **overrides}
        for name, overrides in methods.items()
        for center in centers
        for seed in seeds
    ]


def ring(centers: Sequence[str]) -> list[str]:
    """Pairs to hold out together for development; each center stands in two of them."""
    return [f'{a},{b}' for a, b in zip(centers, [*centers[1:], centers[0]])]


def inner(methods: dict[str, dict], centers: Sequence[str]) -> list[dict]:
    """Development: each pair of the ring held out, scored on validation images alone; one seed."""
    on_val = {name: {'score_on': 'val', **overrides} for name, overrides in methods.items()}
    return grid(on_val, ring(centers), (0,))


def flat(trials: Mapping[str, Mapping[str, dict]]) -> dict[str, dict]:
    """{'METHOD, TRIAL': overrides}, as `nested` looks for them in inner runs."""
    return {f'{name}, {trial}': x for name, of in trials.items() for trial, x in of.items()}


def nested(
    trials: Mapping[str, Mapping[str, dict]],
    inner_runs: Sequence[Summary],
    centers: Sequence[str],
    seeds: Sequence[int],
) -> list[dict]:
    """The grid of methods, each with the trial that inner runs chose for the held-out center.

    trials: {method: {trial: overrides}}; `inner_runs` are those of `inner` with the methods
        `flat(trials)`.  A center's choice is the best mean, over the pairs that hold it out, of
        the validation scores at the seen centers and at the pair's other center: nothing of the
        center itself is looked at.

    Raises ValueError where a trial has no inner run that a center needs, and where an inner run was
    scored on other images than those of `val`, or is not of its trial.
    """
    overrides, score = flat(trials), dict[tuple[str, str], dict[str, list[float]]]()
    for run in inner_runs:
        if run['method'] in overrides:
            _check_inner(run, overrides[run['method']])
        for center in str(run['held_out']).split(','):
            of_pairs = score.setdefault((run['method'], center), {})
            of_pairs.setdefault(run['held_out'], []).append(_without(run, center))

    def of(method, trial, center):
        of_pairs = score.get((f'{method}, {trial}', center), {})
        found = [sum(of) / len(of) for of in of_pairs.values()]  # over seeds
        if len(found) < 2:
            raise ValueError(
                f'{method}, {trial}: {len(found)} of 2 inner runs hold {center} out: run the inner '
                'sweep first'
            )
        return sum(found) / len(found)

    def best(method, center):
        return max(trials[method], key=lambda trial: of(method, trial, center))

    return [
        {'method': method, 'trial': trial, 'data.held_out': center, 'seed': seed,
         **trials[method][trial]}
        for method in trials
        for center in centers
        for trial in [best(method, center)]
        for seed in seeds
    ]


# Fields of labelled steps at seen centers: inner runs leave these out.
OF_OWN_STEPS = ('finetune.choose', 'finetune.steps')


def _check_inner(run: Summary, overrides: Mapping[str, Any]) -> None:
    name = f'inner run {run["method"]}, held out {run["held_out"]}'
    if run['score_on'] != 'val':
        raise ValueError(
            f'{name}: scored on {run["score_on"]}: a choice takes validation images: score_on=val'
        )
    made = flat_settings(run['config'])
    for field, value in overrides.items():
        value = list(value) if isinstance(value, tuple) else value
        if field in made and field not in OF_OWN_STEPS and made[field] != value:
            raise ValueError(
                f'{name}: made with {field}={made[field]!r}, and its trial has {value!r}: run the '
                'inner sweep again'
            )


def _without(run: Summary, center: str) -> float:
    """A pair's score, the larger the better, from all centers but one of the pair."""
    metric = run['headline'] or next(iter(run['seen']['mean']))
    assert run['unseen'] is not None
    (other,) = (s.get(metric) for name, s in run['unseen']['centers'].items() if name != center)
    if other is None:
        raise ValueError(f'inner run {run["method"]}, held out {run["held_out"]}: no {metric} of '
                         'the other center: nothing can be chosen by it')
    score = (run['seen']['mean'][metric] + other) / 2
    return -score if metric in run['lower_is_better'] else score


def named_grid(
    config: ConfigDict, methods: dict[str, dict], chosen: str, held_out: str, num_seeds: int
) -> list[dict]:
    """The grid of some methods and centers by name, on the data that a configuration names.

    chosen: names of `methods`, comma-separated; - and _ are alike, for a field that names an
        algorithm has the one and a table may have the other.
    held_out: centers, or 'all' for each in turn.

    Raises ValueError where a name is none.
    """
    names = [c.name for c in load_source(config).centers]
    if len(names) < 2:
        raise ValueError(f'--held_out={held_out}: {names[0]} is the only center, and has to train')
    centers = names if held_out == 'all' else names_in(held_out, names)
    of, spelled = {}, {name.replace('_', '-'): name for name in methods}
    for name in names_in(chosen.replace('_', '-'), spelled):
        if name not in spelled:  # names hold commas
            raise ValueError(f'--methods={name!r}: one of {"; ".join(methods)}')
        of[spelled[name]] = methods[spelled[name]]
    for name in centers:
        choose('--held_out', name, names)
    return grid(of, centers, range(num_seeds))


def part_of(runs: list, part: str) -> list:
    """Every n-th of the runs, from the i-th on, for a part 'i/n'."""
    match = re.fullmatch(r'(\d+)/(\d+)', part)
    i, n = (int(x) for x in match.groups()) if match else (0, 0)
    if not 1 <= i <= n:
        raise ValueError(f'--part={part}: i/n with i from 1 to n')
    return runs[i - 1 :: n]


class Waiting(NamedTuple):
    """A run of a sweep that is not finished yet."""

    overrides: dict
    config: ConfigDict
    workdir: pathlib.Path


def unfinished(
    config: ConfigDict,
    runs: Iterable[dict],
    workdir: str | pathlib.Path,
    defaults: ConfigDict,
    known: Sequence[Summary] = (),
) -> list[Waiting]:
    """The runs that have no summary yet; a run lives in `workdir`/METHOD/HELD_OUT/SEED.

    defaults: of every field that a configuration has, for runs that were made when it had fewer.
    known: of runs that were finished elsewhere.

    Raises ValueError where a finished run was made by another configuration.
    """
    waiting = []
    of = {(x['method'], x['held_out'], x['seed']): x for x in known}
    for overrides, c, folder in _placed(config, runs, workdir):
        if made := of.get((c.method or c.algorithm, c.data.held_out, c.seed)):
            done = _is_of(made, c, defaults, name_of(c), 'leave --known out')
        else:
            done = _finished(c, folder / 'summary.json', defaults)
        if not done:
            waiting.append(Waiting(overrides, c, folder))
    return waiting


def _placed(config, runs, workdir):
    """The runs, as if all waited."""
    for overrides in runs:
        c = config.copy_and_resolve_references()
        c.update_from_flattened_dict(overrides)
        held_out = file_name(c.data.held_out) if c.data.held_out else 'none'
        method = method_folder(c.method or c.algorithm)
        yield Waiting(overrides, c, expand(workdir) / method / held_out / str(c.seed))


def check_finished_data(
    config: ConfigDict, runs: Iterable[dict], workdir: str | pathlib.Path
) -> None:
    """Raises ValueError where a finished run was made on other data than are named now."""
    read: dict[str, dict] = {}  # many runs are of the same data
    for _, c, folder in _placed(config, runs, workdir):
        if c.data.source != 'folder' or not (folder / 'summary.json').exists():
            continue
        of = f'{c.data} {c.task} {c.seed} {is_discreet(c)}'
        if of not in read:
            source = load_source(c)
            read[of] = told_of(c, source.classes, *apart(c, source))
        was = read_federation(folder)
        if found := other_names(was, read[of]) or other_data(was, read[of]):
            raise ValueError(
                f'{c.data.root}: {found} ({folder}): pass the folder that it was trained on, '
                'delete the run, or name a new workdir'
            )


def run_sweep(waiting: Sequence[Waiting], stop: threading.Event | None = None) -> None:
    """Trains them, one after another; `stop` as in `train`.

    A failure that all runs share ends the sweep (`_is_shared`), as a full disk does.  Else a run
    that fails is told, and leaves the others to go on.

    Raises ValueError at the end, where some failed; MayPass, where all that failed may pass.
    """
    failed: list[tuple[Waiting, Exception]] = []
    begun, trained = time.monotonic(), 0
    for i, run in enumerate(waiting):
        if any_of(stop is not None and stop.is_set()):
            raise Stopped('stopped between two runs: run again to go on')
        left = time_left(time.monotonic() - begun, trained, len(waiting) - i)
        number, name = f'run {i + 1} of {len(waiting)}', name_of(run.config)
        title = f'{number}{left}: {name}'
        try:
            summary = train(run.config, run.workdir, progress=False, stop=stop, title=title)
            trained += 1
            if is_first():
                print(f'{number}: {name}: done, {_scores(summary)}', flush=True)
        except (ValueError, OSError) as error:
            failed.append((run, error))
            if disk_is_full(error):
                raise
            if len(failed) == i + 1 and _is_shared(failed, waiting):
                if not i:
                    raise
                raise ValueError(
                    f'{i + 1} runs failed alike, and {len(waiting) - i - 1} were left: {error}'
                ) from error
            if i + 1 < len(waiting):
                say(f'{number}: {name}: failed: {error}')
    if failed:
        run, first = failed[0]
        kind = MayPass if all(isinstance(e, MayPass) for _, e in failed) else ValueError
        raise kind(
            f'{len(failed)} of {len(waiting)} runs failed; the first: {run.workdir}: {first}'
        )


def _is_shared(failed: Sequence[tuple[Waiting, Exception]], waiting: Sequence[Waiting]) -> bool:
    """Whether the runs that wait would fail as all before them did.

    They would where the first one failed before it trained, and the last one cannot begin either;
    or where runs failed with the same words, in training of more than one method if there are.
    """
    last, (first, error) = waiting[-1], failed[0]
    if len(failed) == 1:
        if not isinstance(error, ValueError) or isinstance(error, Failed):
            return False
        try:
            if last is not first:
                prepare_to_train(last.config)
        except ValueError:
            return True
        return last is first
    words = {str(e).replace(str(run.workdir), '') for run, e in failed}
    methods = {run.config.method for run, _ in failed}
    of_one = isinstance(error, Failed) and len(methods) == 1
    more = any(run.config.method not in methods for run in waiting)
    return len(words) == 1 and not isinstance(error, MayPass) and not (of_one and more)


def time_left(seconds: float, done: int, remaining: int) -> str:
    """', about 12 min left' where so many runs were done in so many seconds; '' before the first.
    """
    if not done:
        return ''
    left = seconds / done * remaining
    for unit, size in (('h', 3600), ('min', 60)):
        if left >= 1.5 * size:
            return f', about {left / size:.0f} {unit} left'
    return f', about {left:.0f} s left'


def _scores(summary: dict) -> str:
    """The first metric of seen and unseen centers, for a terminal."""
    seen, unseen = summary['seen'], summary.get('unseen')
    name = next(iter(seen['mean']))
    told = [f'seen {seen["mean"][name]:.3f}']
    if unseen and name in unseen['mean']:
        told.append(f'unseen {unseen["mean"][name]:.3f}')
    return f'{name}: {", ".join(told)}'


def _finished(config, file, defaults):
    if not file.exists():
        return False
    way_out = 'delete it or name a new workdir'
    return _is_of(read_json(file), config, defaults, file, way_out)


def _is_of(summary, config, defaults, name, way_out):
    """Whether a finished run is what the configuration asks for, and needs no new scores."""
    if not isinstance(summary, dict) or 'config' not in summary:
        raise ValueError(f'{name}: no summary of a run: {way_out}')
    made, now, default = summary['config'], settings_of(config), settings_of(defaults)
    if found := refusal(made, now, default):
        raise ValueError(f'{name}: made by another configuration ({found}): {way_out}')
    nothing_scored = 'seen' in summary and not summary['seen']['mean']
    return not differences(made, now, default) and not nothing_scored


def method_folder(method: str) -> str:
    """A folder's name for a method: readable, and safe."""
    name = '_'.join(method.replace('+', 'and').replace(',', ' ').split())
    return name if is_plain(name) else file_name(method)
