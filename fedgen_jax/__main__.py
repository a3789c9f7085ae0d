"""python -m fedgen_jax --help: the commands, a line each."""

import ast
import os
import pathlib
import sys

LAUNCH = pathlib.Path(__file__).parents[1] / 'launch'
ASKS = ('--help', '-h', 'help')
IN_CHECKOUT = """\
Federated learning across medical centers, with a model generated for each.

The commands, from this folder ({folder}):

{commands}

Each tells its flags and all fields by --help.  In Python:

{functions}"""
INSTALLED = """\
Federated learning across medical centers, with a model generated for each.

Installed are the functions:

{functions}

The commands, python -m launch.NAME, are used from a checkout of the source code:
`python -m fedgen_jax --help` lists them there."""


def commands() -> dict[str, str]:
    """{its name: what it does} of every command of the checkout; none where there is none."""
    found = {}
    checkout = (LAUNCH.parent / 'pyproject.toml').exists()  # else another package's folder
    for file in sorted(LAUNCH.glob('*.py')) if checkout else ():
        source = file.read_text()
        if "if __name__ == '__main__':" in source:
            first = (ast.get_docstring(ast.parse(source)) or '').splitlines()[0]
            found[f'launch.{file.stem}'] = first.partition(': python -m')[0].rstrip('.')
    return found


def text() -> str:
    """The help."""
    package = ast.parse(pathlib.Path(__file__).with_name('__init__.py').read_text())
    examples = [x for x in (ast.get_docstring(package) or '').splitlines() if x.startswith('    ')]
    functions = '\n'.join(['    import fedgen_jax', *examples])
    told = commands()
    if not told:
        return INSTALLED.format(functions=functions)
    lines = '\n'.join(f'    python -m {name:<18} {what}' for name, what in told.items())
    return IN_CHECKOUT.format(folder=LAUNCH.parent, functions=functions, commands=lines)


def main(arguments: list[str]) -> int:
    """Prints the help, or what was not understood; returns the exit code."""
    unknown = [x for x in arguments if x not in ASKS]
    if unknown:
        print(f'error: {unknown[0]!r}: python -m fedgen_jax --help lists the commands',
              file=sys.stderr)
        return 2
    print(text())
    return 0


if __name__ == '__main__':
    try:
        sys.exit(main(sys.argv[1:]))
    except BrokenPipeError:  # who reads, as `head` does, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
