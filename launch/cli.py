"""What the commands share: flags read strictly, and errors a person can act on."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable

import jax
from absl import app, flags, logging

from fedgen_jax import interrupt
from fedgen_jax.data.store import cache_folder, writable
from fedgen_jax.engine.processes import is_first, join
from fedgen_jax.evaluate import metrics_in
from fedgen_jax.files import expand
from fedgen_jax.report.words import at_size, of_class, own_choice
from launch import usage

_CLUSTER = flags.DEFINE_string(
    'cluster', None, 'join other processes: auto (SLURM, Open MPI, TPU pods) or HOST:PORT,ID,NUM'
)
_STOPPED = flags.DEFINE_integer(
    'stopped_code', 0,
    'exit code after SIGTERM or Ctrl-C: not 0 where a scheduler takes 0 for the end',
)
_GRACE = flags.DEFINE_float('grace', 25.0, 'seconds from there to the end, saved or not')


def told_to_stop():
    """As `interrupt.told_to_stop`, for a command."""
    return interrupt.told_to_stop(_STOPPED.value, _GRACE.value)


def run(main: Callable, takes: str | None = None) -> None:
    """Parses the flags and calls `main`; a mistake of the user's is one line and exit code 2.

    What may pass (a full disk, another process's end) is one line and exit code 1.

    takes: the name of the positional arguments, which `main` is called with; None: there are none.
    """

    def parse(argv):
        if usage.is_asked_for(argv):
            print(usage.text(takes))
            sys.exit(0)
        try:
            rest = flags.FLAGS([argv[0], *map(with_home, argv[1:])])
            if takes and not rest[1:]:
                fail(f'{takes} is missing')
            if rest[1:] and not takes:
                fail(f'unexpected argument {rest[1]!r}: fields are set as --config.field=value')
            for name in flags.FLAGS:
                _ = flags.FLAGS[name].value  # a configuration that does not load fails here
            return rest
        except (KeyError, AttributeError) as error:
            fail(no_field(error))
        except (flags.Error, TypeError, ValueError, OSError) as error:
            fail(error)

    def guarded(argv):
        quietly()
        try:
            if _CLUSTER.value:
                join(_CLUSTER.value)
                if not is_first():
                    sys.stdout = open(os.devnull, 'w')  # noqa: SIM115
            else:
                cores_as_devices()
            unkept = keep_compilations()
            main(argv[1:]) if takes else main()
            if unkept:  # else a mistake would have two lines
                print(f'note: compiled programs were not kept: {unkept}', file=sys.stderr)
        except jax.errors.JaxRuntimeError as error:
            if jax.process_count() == 1:
                raise
            fail(f'the cluster stopped, or another of its processes ended ({error})', 1)
        except interrupt.Stopped as stopped:
            print(stopped)
            sys.exit(_STOPPED.value)
        except interrupt.MayPass as error:
            fail(error, 1)
        except BrokenPipeError:  # who reads, as `head` does, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except (ValueError, OSError) as error:
            if interrupt.disk_is_full(error):
                fail(f'{error}: free some space and run again', 1)
            fail(error)

    app.run(guarded, flags_parser=parse)


def no_field(error: Exception) -> str:
    """What to tell of a field that a configuration does not have."""
    field = error.args[0]
    if isinstance(field, KeyError):  # ml_collections wraps its suggestion in another error
        field = field.args[0]
    return f'the configuration has no field {" ".join(str(field).split())} (--help lists all)'


def with_home(argument: str) -> str:
    """`--flag=~/x` as a shell has `~/x`: with the home folder for `~`."""
    flag, equals, value = argument.partition('=')
    if not (argument.startswith('-') and equals):
        flag, equals, value = '', '', argument
    in_home = value == '~' or value.startswith('~/')
    return f'{flag}{equals}{expand(value)}' if in_home else argument


def quietly() -> None:
    """A warning is a line; what libraries tell of their work is not shown."""
    logging.set_verbosity(logging.FATAL)  # Orbax's tracebacks of what `checkpoint` tells in a line

    def line(message, *_, **__):
        return f'warning: {" ".join(str(message).split())}\n'

    warnings.formatwarning = line


def cores_as_devices() -> None:
    """A CPU is as many devices as this process may use cores (a cluster's process: one)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    with contextlib.suppress(RuntimeError):  # JAX has begun, in a process that calls two commands
        jax.config.update('jax_num_cpu_devices', cores)


def keep_compilations() -> str:
    """Keeps compiled programs in the user's cache folder, unless JAX was told of another.

    Returns why it cannot, or ''.
    """
    if jax.config.jax_compilation_cache_dir is None:
        try:
            folder = writable(cache_folder() / 'compiled')
        except (ValueError, OSError) as error:
            return str(error)
        jax.config.update('jax_compilation_cache_dir', str(folder))
    return ''


def fail(error: object, code: int = 2) -> None:
    """Prints one line and exits."""
    text = ' '.join(str(error).split())
    print(f'error: {text}', file=sys.stderr)
    sys.exit(code)


def show(summary: dict) -> str:
    """A summary as a few lines for a terminal."""

    def line(name, block):
        if not block:
            return None
        scores = '  '.join(f'{k} {v:.3f}' for k, v in block['mean'].items())
        return f'{name:<22} {scores}'

    lines, own = [], summary.get('own')
    for group in ('seen', 'unseen'):
        if own and group == 'seen':
            lines.append(line('seen, own choice', summary['seen']))
        refined = own['generated'] if own and group == 'seen' else summary[group]
        lines.append(line(f'{group}, refined', refined))
        for name, key in (('center model', 'center_model'), ('fine-tuned', 'finetuned')):
            lines.append(line(f'{group}, {name}', (summary.get(key) or {}).get(group)))
        pooled = {'mean': metrics_in(summary[group]['pooled'])} if group == 'seen' else None
        lines.append(line('seen, images pooled', pooled))
        shuffled = summary['controls']['shuffled']
        lines.append(line(f'{group}, shuffled', (shuffled or {}).get(group)))
    lines.append(own_choice(summary))
    rated = [k for k in summary['seen']['mean'] if of_class(summary, k)]
    lines += [f'{" and ".join(rated)}:{of_class(summary, rated[0])}'] if rated else []
    lines.append(at_size(summary) if summary.get('resolution') else None)
    return '\n'.join(x for x in lines if x)
