"""Attacks a finished run, beside controls: python -m launch.audit --workdir=RUN [--which=NAMES].

Writes audit.json, and audit.html for people, to RUN or to --to.  NAMES are of canaries, descriptor,
differencing, attributes, inversion, lira, with commas between them.  Of a private run both hold
what nobody paid for, images among it: they are the centers' own, and lie outside of RUN.  What
canaries bound, which are no patients, RUN's summary.json has too (`privacy`: `audit`).
"""

import time

from absl import flags

from fedgen_jax.audit import AUDITS, subject_of
from fedgen_jax.files import alone_in, expand, write_json
from fedgen_jax.kept import check_outside
from fedgen_jax.promise import note_audit
from fedgen_jax.registry import choose
from fedgen_jax.report.audits import state, write_audits
from fedgen_jax.run import check_is_run
from launch import cli

_WORKDIR = flags.DEFINE_string('workdir', None, 'a finished run of launch.train')
_WHICH = flags.DEFINE_string('which', ','.join(AUDITS), 'the audits, with commas between them')
_TO = flags.DEFINE_string('to', None, 'the folder to write to; default: --workdir')
_DATA = flags.DEFINE_string('data', None, 'the data folder, if it has moved')


def main():
    workdir = expand(_WORKDIR.value)
    names = [name.strip() for name in _WHICH.value.split(',') if name.strip()]
    if not names:
        raise ValueError(f'--which={_WHICH.value!r}: some of {", ".join(AUDITS)}')
    chosen = {name: choose('which', name, AUDITS) for name in names}
    check_is_run(workdir)
    with alone_in(workdir):
        subject = subject_of(workdir, _DATA.value)
        to = expand(_TO.value) if _TO.value else workdir
        check_outside(workdir, subject.run.config, to)
        to.mkdir(parents=True, exist_ok=True)
        findings, seconds = {}, {}
        for name, audit in chosen.items():
            started = time.monotonic(), time.process_time()
            findings[name] = f = audit(subject)
            ended = time.monotonic(), time.process_time()
            seconds[name] = wall, cpu = [round(b - a, 1) for a, b in zip(started, ended)]
            print(f'{name} ({wall:.0f} s, {cpu:.0f} of a core; control {state(f)})', flush=True)
            for text in (f.answer, f.control and f'control: {f.control}',
                         f.missing and f'not done: {f.missing}'):
                if text:
                    print(f'  {text}', flush=True)
        write_json(to / 'audit.json', {
            name: {**f.numbers, 'control_holds': f.holds, 'missing': f.missing,
                   'seconds': seconds[name][0], 'cpu_seconds': seconds[name][1]}
            for name, f in findings.items()
        })
        if findings.get('canaries') and findings['canaries'].numbers:
            note_audit(workdir, findings['canaries'].numbers)
        c = subject.run.config
        lede = (
            f'Attacks on {subject.run.program.algorithm.title}, trained for {c.rounds} rounds at '
            f'{len(subject.run.seen)} centers, by an auditor who has all images of theirs. '
            + (f'Privacy was promised to each {c.privacy.unit} (epsilon {c.privacy.epsilon:g} at '
               f'delta {c.privacy.delta:g}).' if c.privacy.unit else
               'No privacy was promised (privacy.unit is empty).')
            + (' Sums were taken under masks.' if c.secure.on else '')
        )
        write_audits(to / 'audit.html', 'What attacks find', lede, findings)
    print(f'written: {to}/audit.json, {to}/audit.html')


if __name__ == '__main__':
    flags.mark_flag_as_required('workdir')
    cli.run(main)
