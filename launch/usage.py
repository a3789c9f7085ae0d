"""The text of --help: what a command does, its flags, and every field of a configuration."""

import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence

from absl import flags
from ml_collections import ConfigDict

from fedgen_jax import config
from fedgen_jax.algorithms import ALGORITHMS
from fedgen_jax.models import MODELS, options_of

ASKS = ('--help', '-help', '-h', '-?', '--helpshort', '-helpshort', '--helpfull', '-helpfull')
CHOSEN = 'launch.chosen'  # whose flags name a configuration
SHARED = 'launch.cli'  # whose flags all commands have

# As c.data.root = ''  # the folder with manifest.csv
FIELD = re.compile(r'^\s+c\.([\w.]+) = .*?\S(?:  # (.*))?$', re.MULTILINE)


def is_asked_for(argv: Sequence[str]) -> bool:
    """Whether the arguments ask for help, before a `--` that ends the flags."""
    given = argv[1 : argv.index('--')] if '--' in argv else argv[1:]
    return any(arg.split('=')[0] in ASKS for arg in given)


def text(takes: str | None) -> str:
    """The help of the command that runs; takes: as in `cli.run`."""
    main = sys.modules['__main__']
    by_module = flags.FLAGS.flags_by_module_dict()
    own, chosen, shared = (by_module.get(of, []) for of in (sys.argv[0], CHOSEN, SHARED))
    told = map(_flag, [*own, *chosen, *shared])
    parts = [inspect.getdoc(main) or '', '', 'Flags:', *told]
    if takes:
        parts.insert(1, f'{takes}: one or more')
    if chosen:
        parts += ['', 'Fields, with the defaults that a plan or the file of --config changes; set '
                  'one by', '--config.FIELD=VALUE:', *fields()]
    return '\n'.join(parts)


def fields() -> Iterator[str]:
    """A line, or a few, for every field of a configuration: its default and its comment."""
    comments = dict(FIELD.findall(inspect.getsource(config.base)))
    for name, family in ALGORITHMS.items():
        own = comments_of(family.defaults)
        comments |= {f'{name}.{field}': comment for field, comment in own.items()}
    defaults = dict(flat(config.base()))
    first = [name for name in comments if name in defaults]  # in the order of the file
    for name in dict.fromkeys([*first, *defaults]):
        yield _entry(f'{name} = {defaults[name]!r}', comments.get(name, ''))
    own: dict[str, list[str]] = {}
    for name, model in MODELS.items():
        for field, default in options_of(model).items():
            if f'model.{field}' not in defaults:
                own.setdefault(f'model.{field} = {default!r}', []).append(name)
    for entry, names in own.items():
        yield _entry(entry, f'of {", ".join(names)}')


def comments_of(defaults: Callable[[], ConfigDict]) -> dict[str, str]:
    """{field: comment} of a family, and of the `MODULE.defaults()` that it begins with."""
    source, found = inspect.getsource(defaults), dict[str, str]()
    for module in re.findall(r'(\w+)\.defaults\(\)', source):
        found |= comments_of(inspect.getmodule(defaults).__dict__[module].defaults)
    return found | dict(FIELD.findall(source))


def flat(c: ConfigDict, prefix: str = '') -> Iterator[tuple[str, object]]:
    """(name with dots, value) of every field."""
    for name, value in c.items():
        if isinstance(value, ConfigDict):
            yield from flat(value, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', value


def _flag(flag) -> str:
    told = not isinstance(flag.default, ConfigDict | type(None)) and flag.default not in (False, '')
    default = f' (default: {flag.default})' if told else ''
    return _entry(f'--{flag.name}', f'{flag.help}{default}')


def _entry(name, explained):
    gap = ' ' * max(2, 34 - len(name))
    return textwrap.fill(
        f'{name}{gap}{explained}'.rstrip(), 100, initial_indent='  ', subsequent_indent=' ' * 36,
        break_long_words=False, break_on_hyphens=False,
    )
