"""Centers that join, change and leave: FedGen without anyone's training, beside training anew.

    python -m benchmarks.claim --workdir=runs/claim --seed=20

Drawn hospitals with the settings of `configs/demo.py`, whose choices were made on other seeds of
the drawing.  All models are scored on test images of the center in question, and made of its
training images: of unlabelled ones alone, but for fine-tuning and pFedHN's embedding (1, 5 and 20
labelled images a class) and training anew (all labels).  The bound is that model after steps on all
labels of the center.

Every part is a run of its own below --workdir, and a second call goes on where the first was cut.
The result is kept in WORKDIR/SEED.json.
"""

import pathlib
import time
from typing import NamedTuple

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict
from PIL import Image

from configs import demo
from fedgen_jax.answers import finished
from fedgen_jax.data.examples import SPLITS, Center, Examples, of_split, take
from fedgen_jax.data.source import draw
from fedgen_jax.evaluate import model_of, score, seen_statistics, statistic_of
from fedgen_jax.files import write_json
from fedgen_jax.hypernet import descriptor
from fedgen_jax.newcomer import adapted_model
from fedgen_jax.onboard import recalculate
from fedgen_jax.program import num_bytes
from fedgen_jax.report.tables import markdown
from fedgen_jax.run import Trained
from fedgen_jax.statistics import Statistics
from fedgen_jax.train import train

_WORKDIR = flags.DEFINE_string('workdir', None, 'where folders and runs are written')
_SEED = flags.DEFINE_integer('seed', 20, 'of the drawing and of the runs')
_ROUNDS = flags.DEFINE_integer('rounds', 0, 'of training; 0: as the demo')

JOINS = ('synthetic-6', 'synthetic-7')
CHANGES = 'synthetic-0'
SHARES = (0.1, 0.5, 1.0)  # of its images that come from another scanner
LABELLED = (1, 5, 20)  # images a class
UNLABELLED_STEPS = 20  # at a center, `adapt.steps`
METRIC = 'balanced_accuracy'


class Row(NamedTuple):
    """One way to serve a center: its score, and what it costs where.

    seconds: of the center's work, once compiled; of training anew, those of all rounds together.
    bytes:   that the center sends and receives; of training anew, all centers' together.
    steps:   of learning at the center, and at the others together.
    """

    event: str
    way: str
    score: float
    seconds: float
    bytes: int
    steps: int
    steps_at_others: int


def config_of(root: pathlib.Path, held_out=JOINS, changes=()):
    c = demo.get_config('classification')
    c.data.source, c.data.root, c.data.held_out = 'folder', str(root), ','.join(held_out)
    c.seed = _SEED.value
    c.rounds = _ROUNDS.value or c.rounds
    c.eval_every = c.checkpoint_every = c.rounds
    c.finetune.choose, c.adapt.steps = (), 0  # what labels add is fitted here, of few
    c.update_from_flattened_dict(dict(changes))
    return c


def drawn(scanner: int):
    """The hospitals' images, all taken by this scanner of theirs."""
    d = demo.get_config('classification').data
    return draw(d.centers, d.examples, d.image_size, _SEED.value, d.spread, 'label', scanner)


def write_folder(root: pathlib.Path, share: float = 0.0) -> pathlib.Path:
    """The hospitals as a folder, with a share of `CHANGES`' images from its other scanner."""
    if (root / 'manifest.csv').exists():
        return root
    now, later = drawn(0), drawn(1)
    (root / 'images').mkdir(parents=True, exist_ok=True)
    rows = ['image,center,split,label']
    for center, other in zip(now.centers, later.centers):
        changed = np.zeros(len(center.split), bool)
        if center.name == CHANGES:
            changed = by_new_scanner(len(changed), share)
        for i, split in enumerate(center.split):
            examples = (other if changed[i] else center).examples
            name = f'images/{center.name}-{i}.png'
            Image.fromarray(np.asarray(examples.image[i])).save(root / name)
            label = now.classes[int(examples.target['label'][i])]
            rows.append(f'{name},{center.name},{SPLITS[split]},{label}')
    (root / 'manifest.csv').write_text('\n'.join(rows) + '\n')
    return root


def by_new_scanner(num_examples: int, share: float) -> np.ndarray:
    """bool [N]: which of `CHANGES`' images another scanner took."""
    order = np.random.default_rng(0).permutation(num_examples)
    return np.isin(np.arange(num_examples), order[: round(share * num_examples)])


class Done(NamedTuple):
    """A finished run."""

    trained: Trained
    config: ConfigDict
    cost: dict


def trained_on(name: str, config: ConfigDict) -> Done:
    folder = pathlib.Path(_WORKDIR.value) / str(_SEED.value) / name
    summary = train(config, folder, progress=False)
    return Done(finished(folder)[1], config, summary['cost'])


def center_of(trained: Trained, name: str) -> Center:
    return next(c for c in (*trained.seen, *trained.unseen) if c.name == name)


def timed(make) -> tuple[float, object]:
    """(seconds of the second call, what it returns)."""
    for _ in range(2):
        started = time.perf_counter()
        made = jax.block_until_ready(make())
    return time.perf_counter() - started, made


def few_labelled(train_images: Examples, per_class: int) -> Examples:
    """The first images of each class, as many as there are up to `per_class`."""
    label = np.asarray(train_images.target['label'])
    chosen = np.zeros(len(label), bool)
    for k in np.unique(label):
        chosen[np.flatnonzero(label == k)[:per_class]] = True
    return take(train_images, chosen)


def of_training(event: str, done: Done, name: str) -> list[Row]:
    """Training of the whole federation, whose `name` is scored as a seen center.

    As the rounds leave its model, and after further steps on its labels.
    """
    trained, c, cost = done
    client = next(i for i, x in enumerate(trained.seen) if x.name == name)
    center, others = trained.seen[client], len(trained.seen) - 1
    images = of_split(center, 'train')
    sent = c.rounds * (cost['bytes_up'] + cost['bytes_down']) * len(trained.seen)
    steps, rows = c.rounds * c.local_steps, []
    for way, labelled, more in (('', None, 0), (', and own steps', images, c.finetune.steps)):
        seconds, model = timed(lambda: model_of(trained, images, client, labelled=labelled))  # noqa: B023
        value = score(trained, model, of_split(center, 'test'))[METRIC]
        seconds = c.rounds * cost['round_seconds'] + seconds
        rows.append(Row(event, f'FedGen, all train anew{way}', value, seconds, sent, steps + more,
                        steps * others))
    return rows


def bytes_of(trained: Trained, images: Examples) -> int:
    """What a center sends and receives to get its model: a statistic up, what is shared down."""
    return statistic_of(trained, images).total.nbytes + 8 + num_bytes(trained.shared)


def generated(
    event: str, trained: Trained, center: Center, before: Statistics, way: str = 'FedGen'
) -> Row:
    """The model that is made of a center's unlabelled images, and the center model with it."""
    images = of_split(center, 'train')

    def make():
        statistic = statistic_of(trained, images)
        after = recalculate(before, {center.name: statistic})
        model = model_of(trained, images, m_E=after.refined_E[center.name])
        return model, model_of(trained, images, m_E=after.center_model_E, whole=True)

    seconds, (model, _) = timed(make)
    sent = bytes_of(trained, images)
    value = score(trained, model, of_split(center, 'test'))[METRIC]
    return Row(event, way, value, seconds, sent, 0, 0)


def after_steps(event: str, way: str, trained: Trained, center: Center) -> Row:
    """A new center's model after steps without labels."""
    images = of_split(center, 'train')
    seconds, model = timed(lambda: adapted_model(trained, images, UNLABELLED_STEPS)[0])
    value = score(trained, model, of_split(center, 'test'))[METRIC]
    sent = bytes_of(trained, images) if trained.program.describe else num_bytes(trained.shared)
    return Row(event, f'{way}, {UNLABELLED_STEPS} steps without labels', value, seconds, sent,
               UNLABELLED_STEPS, 0)


def by_scanner(event: str, trained: Trained, before: dict, new: Center, share: float) -> Row:
    """The model made before for the old scanner's images, and a new one for the new scanner's.

    The new scanner is a center of its own, which joins: nothing else is made anew.
    """
    number = [int(pathlib.Path(path).stem.rpartition('-')[2]) for path in new.path]
    changed = by_new_scanner(len(number), share)[number]
    of = {split: new.split == SPLITS.index(split) for split in ('train', 'test')}
    recent, scored = take(new.examples, changed & of['train']), of_split(new, 'test')
    seconds, made = timed(lambda: model_of(trained, recent))
    old, own = (trained.program.predict(model, scored.image) for model in (before, made))
    answer = jax.tree.map(lambda a, b: np.where(changed[of['test'], None], b, a), old, own)
    value = trained.program.task.metrics(answer, scored.target, scored.weight)[METRIC]
    sent = bytes_of(trained, recent)
    return Row(event, 'FedGen, the new scanner joins', value, seconds, sent, 0, 0)


def served(
    event: str, way: str, done: Done, center: Center, of: Center | None = None, labels: int = 0
) -> Row:
    """A model of the server, with the statistics of `of`'s images (default: the center's own).

    labels: images a class whose labels it is fine-tuned on.
    """
    trained, images = done.trained, of_split(of or center, 'train')
    few = few_labelled(images, labels) if labels else None
    seconds, model = timed(lambda: model_of(trained, images, labelled=few))
    value = score(trained, model, of_split(center, 'test'))[METRIC]
    c = done.config
    fit = c.pfedhn.fit_steps if c.algorithm == 'pfedhn' else c.finetune.steps
    return Row(event, way, value, seconds, num_bytes(trained.shared), fit if labels else 0, 0)


def main(_):
    logging.set_verbosity(logging.WARNING)
    folder = pathlib.Path(_WORKDIR.value) / str(_SEED.value)
    root = write_folder(folder / 'before')
    ours = trained_on('fedgen', config_of(root))
    fedavg = trained_on('fedavg', config_of(root, changes=demo.RUNS['fedavg'].items()))
    pfedhn = trained_on('pfedhn', config_of(root, changes={'algorithm': 'pfedhn'}.items()))
    fedgen = ours.trained
    base = ours._replace(trained=fedgen._replace(program=fedgen.program.base))
    own = seen_statistics(fedgen)
    before = Statistics(own, descriptor.pool(own.values()))
    rows = []

    anew = trained_on('anew', config_of(root, ()))
    for name in JOINS:
        center, event = center_of(fedgen, name), f'{name} joins'
        rows += [
            generated(event, fedgen, center, before),
            served(event, 'FedAvg, every add-on', base, center),
            served(event, 'FedAvg', fedavg, center),
            after_steps(event, 'FedGen', fedgen, center),
            after_steps(event, 'FedAvg, every add-on', base.trained, center),
            *(served(event, f'{way}, {k} labelled a class', done, center, labels=k)
              for way, done in (('FedGen', ours), ('FedAvg, every add-on', base),
                                ('pFedHN, fitted embedding', pfedhn))
              for k in LABELLED),
            *of_training(event, anew, name),
        ]

    old = center_of(fedgen, CHANGES)
    made_before = model_of(fedgen, of_split(old, 'train'), 0)
    for share in SHARES:
        again = trained_on(
            f'anew-{share:g}', config_of(write_folder(folder / f'changed-{share:g}', share))
        )
        new, event = center_of(again.trained, CHANGES), f'{share:.0%} of {CHANGES} change'
        value = score(fedgen, made_before, of_split(new, 'test'))[METRIC]
        rows += [
            Row(event, 'FedGen, made before', value, 0.0, 0, 0, 0),
            generated(event, fedgen, new, before),
            by_scanner(event, fedgen, made_before, new, share),
            served(event, 'FedAvg, every add-on', base, new),
            served(event, 'FedAvg', fedavg, new, of=old),
            after_steps(event, 'FedGen', fedgen, new),
            after_steps(event, 'FedAvg, every add-on', base.trained, new),
            *of_training(event, again, CHANGES),
        ]

    rows += leaving(anew.trained, fedgen)
    write_json(folder.with_suffix('.json'), [row._asdict() for row in rows])
    print(table(rows))


def leaving(with_them: Trained, without: Trained) -> list[Row]:
    """Who trained with `JOINS`, once these are gone, beside training without them.

    Nothing is made anew but the center model: the others' models depend on their own images alone.
    """
    own = seen_statistics(with_them)
    after = recalculate(Statistics(own, descriptor.pool(own.values())), dict.fromkeys(JOINS))
    stay = without.seen
    rows = []
    for way, trained, m_E in (
        ('FedGen, center model', with_them, after.center_model_E),
        ('FedGen, center model of all who train anew', without,
         descriptor.mean(descriptor.pool(seen_statistics(without).values()))),
    ):
        scores = []
        for name in (c.name for c in stay):
            center = center_of(trained, name)
            model = model_of(trained, of_split(center, 'train'), m_E=m_E, whole=True)
            scores.append(score(trained, model, of_split(center, 'test'))[METRIC])
        rows.append(Row(f'{len(JOINS)} leave', way, float(np.mean(scores)), 0.0, 0, 0, 0))
    return rows


def table(rows) -> str:
    head = ['', 'way', 'score', 's', 'kB', 'steps', "others' steps"]
    return markdown(head, [
        [r.event, r.way, f'{100 * r.score:.1f}', f'{r.seconds:.2f}', f'{r.bytes / 1000:,.0f}',
         f'{r.steps:,}', f'{r.steps_at_others:,}'] for r in rows
    ])


if __name__ == '__main__':
    flags.mark_flag_as_required('workdir')
    app.run(main)
