"""Centers that join, change or leave a trained run, as they wish: only additive statistics travel.

A center that joins makes its model itself, from its own unlabelled images and the server's state;
the others take no step and receive nothing.
"""

import json
import pathlib

import jax

from fedgen_jax import checkpoint
from fedgen_jax.deploy import Net
from fedgen_jax.deploy.deployment import (
    FILE,
    Deployed,
    ask_centers,
    descriptor_of,
    request,
    statistic_in,
    told_in,
)
from fedgen_jax.deploy.meeting import Found, Hello, greet
from fedgen_jax.deploy.terms import check_deployable, terms_of
from fedgen_jax.deploy.wire import tree_to_bytes
from fedgen_jax.files import alone_in, expand, read_json, write_json
from fedgen_jax.hypernet import descriptor
from fedgen_jax.hypernet.descriptor import Statistic
from fedgen_jax.onboard import (
    check_psi,
    entry_of,
    forget,
    generated,
    note_change,
    recalculate,
)
from fedgen_jax.privacy import Message
from fedgen_jax.run import Restored, Run, check_is_run, restore
from fedgen_jax.statistics import Statistics, read_statistics, write_statistics


def change(workdir: str | pathlib.Path, net: Net) -> dict:
    """Does what the connected centers wish; returns and writes `changed.json`.

    {'joined', 'updated', 'left': names of centers, 'scores': {center: what it told},
     'resolution': {center: at which size its masks were scored},
     'center_model': {'images', 'weights'}}.  Also writes `statistics/` and `center_model/`, and as
    `launch.onboard` does `onboard/` and a line of `onboarded.jsonl`; models of these centers that
    lie in the run's folder are of images before, and go.

    Raises ValueError where the run has no learned descriptor, or a wish does not fit it; Failed
    where a center that wishes something gives no usable statistic: then nothing is changed.
    """
    workdir = expand(workdir)
    check_is_run(workdir)
    with alone_in(workdir):
        restored = restore(workdir)
        check_deployable(restored.config)
        if restored.program.describe is None:
            raise ValueError(f'{workdir}: trained without a learned descriptor: nobody can join')
        before = read_statistics(workdir)
        check_psi(workdir, restored, before.pooled)
        terms = json.dumps(terms_of(restored.config))
        found = greet(net, terms, {}, restored.classes)
        return _change(workdir, restored, before, net, terms, found)


def _change(workdir, restored: Restored, before: Statistics, net, terms, found: Found) -> dict:
    wishes = {h.name: h.wish for h in found.values() if isinstance(h, Hello) and h.wish}
    check_wishes(wishes, before)
    done = _deployed(workdir, restored, net, terms)
    sent = tree_to_bytes((restored.state.shared, restored.state.protection))
    coming = [name for name, wish in wishes.items() if wish != 'leave']
    replies = ask_centers(done, found, {n: request(done, 'join', n, state=sent) for n in coming})
    length, psi = descriptor_of(restored.program, restored.state.shared, done.run.config)
    changes: dict[str, Statistic | None] = dict.fromkeys(wishes)
    changes |= {n: statistic_in(replies[n], n, length, psi) for n in coming}
    after = recalculate(before, changes)
    model = generated(restored, after.center_model_E)
    checkpoint.save_tree(workdir / 'center_model', {'params': model})
    write_statistics(workdir, after.statistics)
    scores, resolution = told_in(replies), told_in(replies, 'resolution')
    for name, wish in wishes.items():
        forget(workdir, name)
        if wish != 'leave':
            entry = entry_of(workdir, name)
            entry.parent.mkdir(exist_ok=True)
            write_json(entry, {
                'images': after.statistics.own[name].count, 'scores': scores.get(name, {}),
                'resolution': resolution.get(name), 'model': None,
            })
    for wish in DONE:
        if of := [name for name, own in wishes.items() if own == wish]:
            note_change(workdir, ACTION[wish], of)
    report = {
        **{done: [n for n, w in wishes.items() if w == wish] for wish, done in DONE.items()},
        'scores': scores,
        'resolution': resolution,
        'center_model': {
            'images': after.statistics.pooled.count, 'weights': descriptor.hash_of(model)
        },
    }
    write_json(workdir / 'changed.json', report)
    return report


DONE = {'join': 'joined', 'update': 'updated', 'leave': 'left'}
ACTION = {'join': 'join', 'update': 'update', 'leave': 'remove'}  # as `launch.onboard` calls them


def check_wishes(wishes: dict[str, str], before: Statistics) -> None:
    """Raises ValueError where nobody wishes anything, or a wish does not fit who is there."""
    if not wishes:
        raise ValueError('no connected center wishes anything: start launch.center --wish=join')
    for name, wish in wishes.items():
        if wish == 'join' and name in before.own:
            raise ValueError(f'{name}: has joined already: let it wish "update"')
        if wish != 'join' and name not in before.own:
            raise ValueError(f'{name}: wishes to {wish}, and is not among {", ".join(before.own)}')


def _deployed(workdir, restored: Restored, net, terms) -> Deployed:
    """The run as requests need it."""
    c = restored.config
    run = Run(
        c, restored.classes, restored.program, (), (), 0, jax.random.key(c.seed),
        reference=restored.reference,
    )
    file = workdir / FILE
    token = read_json(file)['run'] if file.exists() else ''
    return Deployed(run, restored.seen, terms, token, net, Message((), ()))
