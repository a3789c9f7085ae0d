"""The configuration of a command: a file's, or one that is planned from the data.

    --config=FILE [--config.FIELD=VALUE ...]                      as the file has it
    --data=FOLDER [--columns=HEADERS] [--task=TASK] [--held_out=CENTER] [--minutes=M]
        [--config.FIELD=VALUE ...]

The second form looks at the data, prints what it chose and why, and writes it to plan.json in the
workdir.  There it is read again when the command is, so that a run goes on as it was planned.  To a
command that asks for something else it is refused.
"""

import pathlib
import sys
from typing import TextIO

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from configs import folder
from fedgen_jax.engine.processes import is_first
from fedgen_jax.files import expand, read_json, write_first
from fedgen_jax.modality import MODALITIES
from fedgen_jax.plan import MINUTES, Fields, Plan, configured, make_plan, room
from fedgen_jax.registry import choose
from fedgen_jax.tasks import TASKS
from launch import cli

try:
    CONFIG = config_flags.DEFINE_config_file(
        'config', folder.__file__, 'the experiment; default: planned from --data', lock_config=True
    )
except (KeyError, AttributeError) as error:  # it reads --config.FIELD at once, into the default
    cli.fail(cli.no_field(error))
_DATA = flags.DEFINE_string('data', None, 'a folder, from which the settings are planned')
_COLUMNS = flags.DEFINE_string(
    'columns', None, "of --data: which headers stand for our columns, 'label:dx,center:hospital'"
)
_TASK = flags.DEFINE_string('task', None, f'of --data: {", ".join(TASKS)}; default: classification')
_HELD_OUT = flags.DEFINE_string('held_out', None, 'of --data: centers that do not train')
_PLAN = flags.DEFINE_string('plan', None, "of --data: the plan's file; default: WORKDIR/plan.json")
_ONLY_PLAN = flags.DEFINE_bool('only_plan', False, 'of --data: plan, and do not train')
_MINUTES = flags.DEFINE_float('minutes', MINUTES, 'of --data: what training may take here')


def chosen(
    workdir: str, held_out: str | None = None, told: TextIO | None = None
) -> ConfigDict:
    """The configuration that the flags name; planned, if that is what they ask for.

    held_out: in place of --held_out, for a sweep, whose runs hold out what they will.
    told:     where the plan is printed; default: standard output.

    Raises ValueError where the flags do not go together, or the data cannot be read.
    """
    flag = flags.FLAGS['config']
    given = dict(config_flags.get_override_values(flag))
    if flag.present:
        for name in ('data', 'task', 'minutes', 'plan', 'only_plan'):
            if flags.FLAGS[name].present:
                raise ValueError(f'--{name}: plans the settings, and --config names a file of them')
        if _COLUMNS.present:
            raise ValueError('--columns: with --config it is --config.data.columns')
        if held_out is None and _HELD_OUT.present:
            raise ValueError('--held_out: with --config it is --config.data.held_out')
        return with_modality(CONFIG.value, given)
    if _DATA.value is None:
        raise ValueError('name the data by --data=FOLDER, or an experiment by --config=FILE')
    given['data.root'] = _DATA.value
    if _COLUMNS.value is not None:
        given['data.columns'] = _COLUMNS.value
    task = _TASK.value or given.get('task', 'classification')
    if ':' in task:
        raise ValueError(
            f'--task={task}: a plan knows {", ".join(TASKS)}: write the settings for your own task '
            'into a file, and name it by --config'
        )
    choose('--task', task, TASKS)
    held_out = _HELD_OUT.value if held_out is None else held_out
    if held_out:
        given['data.held_out'] = held_out
    c = folder.get_config(task)
    c.update_from_flattened_dict(given)
    file = expand(_PLAN.value or pathlib.Path(workdir) / 'plan.json')
    return _planned(c, given, file, told or sys.stdout)


def _planned(c: ConfigDict, given: dict, file: pathlib.Path, told: TextIO) -> ConfigDict:
    """The configuration of the plan in `file`, which is made if it is not there."""
    modality = given.pop('modality', 'auto')
    asked = {
        '--data': c.data.root, '--columns': c.data.columns, '--task': c.task,
        '--held_out': c.data.held_out, '--config.modality': modality, '--minutes': _MINUTES.value,
    }
    kept = file.exists()
    if not kept:
        if jax.process_count() > 1:
            raise ValueError(f'{file}: missing: on a cluster, call first with --only_plan')
        plan = make_plan(c, modality, _MINUTES.value, given)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_first(file, {**plan._asdict(), 'asked': asked, 'fields': {
            field: {'value': value, 'reason': why} for field, (value, why) in plan.fields.items()
        }})
    made = read_json(file)
    _check_asked(file, made.pop('asked', {}), asked)
    fields: Fields = {k: (_frozen(x['value']), x['reason']) for k, x in made['fields'].items()}
    if modality != 'auto':
        given['modality'] = modality
    fields |= {k: (v, 'as stated') for k, v in given.items()}
    made['minutes'] *= fields['rounds'][0] / made['fields']['rounds']['value']
    start = given.get('start.weights')
    if start and expand(start).is_dir() and 'start.keep' not in given:
        fields['start.keep'] = (), 'a run to start from has all its layers'
    if is_first():
        before = f'planned before, in {file}' if kept else 'planned from the data'
        print(text(Plan(**{**made, 'fields': fields}), before), file=told, flush=True)
    if _ONLY_PLAN.value:
        if not kept:
            print(f'written: {file}')
        sys.exit(0)
    return configured(c, fields)


def _check_asked(file: pathlib.Path, before: dict, now: dict) -> None:
    """Raises ValueError where a plan was made for something else than the command asks for.

    A plan that --plan names serves other data too; what a command does not say, is as it was.
    """
    unsaid = {'--config.modality': 'auto'}
    if not _MINUTES.present:
        unsaid['--minutes'] = now['--minutes']
    always = '--task', '--config.modality'

    def alike(name, a, b):
        if name == '--data':
            a, b = (expand(x).resolve() for x in (a, b))
        if name == '--held_out':  # names may hold commas, and their order is of no matter
            a, b = (sorted(part.strip() for part in x.split(',')) for x in (a, b))
        return a == b

    for name, value in now.items():
        if _PLAN.value and name not in always:
            continue
        if name in before and not alike(name, before[name], value) and value != unsaid.get(name):
            raise ValueError(
                f'{file}: planned for {name}={before[name]}, now {value}: remove it to plan anew, '
                'or take another --workdir'
                + (f'; --plan={file} takes it as it is' if name not in always else '')
            )


def with_modality(c: ConfigDict, given: dict) -> ConfigDict:
    """The configuration with the fields of its modality, if it names one, but those given."""
    if not c.modality:
        return c
    modality = choose('modality', c.modality, MODALITIES)
    fields = {k: v for k, v in modality.fields.items() if k not in given}
    c = c.copy_and_resolve_references()
    if 'standardize' not in c.model:
        del fields['model.standardize']
    c.update_from_flattened_dict(fields)
    return c


def text(plan: Plan, title: str) -> str:
    """A plan for a terminal: what was chosen, a line a reason."""
    by_reason: dict[str, list[str]] = {}
    for field, (value, reason) in plan.fields.items():
        if reason not in ('as stated', 'the default'):
            by_reason.setdefault(reason, []).append(f'{field}={value}')
    lines = [f'  {", ".join(of)}: {reason}' for reason, of in by_reason.items()]
    return '\n'.join([
        f'{title} (set any field by --config.FIELD=VALUE):', *lines,
        f'  {_minutes(plan.minutes)} of training, and one or more of compiling the first time; '
        f'{plan.megabytes:.0f} of {room():.0f} MiB of memory',
    ])


def _minutes(number: float) -> str:
    if number < 1:
        return 'less than a minute'
    return 'about a minute' if number < 1.5 else f'about {number:.0f} minutes'


def _frozen(value):
    """JSON's lists as the tuples that they were."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
