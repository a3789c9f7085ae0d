"""The page of a finished run: python -m launch.report --workdir=RUN."""

import json
import pathlib

from absl import flags

from fedgen_jax.report import NAMES, cloud_of, finished, read_lines, strip_of, write_report
from launch import cli

_WORKDIR = flags.DEFINE_string('workdir', None, 'a run of launch.train')


def main():
    path = report(pathlib.Path(_WORKDIR.value))
    print(f'written: {path}')


def report(workdir: pathlib.Path) -> pathlib.Path:
    """Writes `report.html` into a run's folder."""
    if not (workdir / 'summary.json').is_file():
        raise ValueError(f'{workdir}/summary.json: missing: let launch.train finish the run')
    summary = json.loads((workdir / 'summary.json').read_text())
    run, done = finished(workdir)
    centers = [(c, 'seen', i) for i, c in enumerate(run.seen)]
    centers += [(c, 'unseen', None) for c in run.unseen]
    described = done.program.describe is not None
    name = NAMES[summary['algorithm']]
    path = workdir / 'report.html'
    write_report(
        path,
        title=f'{name}: {summary["task"]}',
        lede=f'{len(run.seen)} centers trained for {summary["rounds"]} rounds, seed '
        f'{summary["seed"]}; {len(run.unseen)} did not.',
        summaries={name: summary},
        lines={name: read_lines(workdir)},
        clouds=[cloud_of(done, c, kind) for c, kind, _ in centers] if described else (),
        strips=[strip_of(done, c, kind, run.classes, i) for c, kind, i in centers],
    )
    return path


if __name__ == '__main__':
    flags.mark_flag_as_required('workdir')
    cli.run(main)
