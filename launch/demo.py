"""The method in minutes: python -m launch.demo --task=classification --workdir=RUN.

Trains FedGen, FedAvg and local-only models on synthetic centers, takes in unseen centers from
unlabelled images, replaces one center's scanner, and writes it all to RUN/report.html.
"""

import pathlib
import time

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from configs import demo
from fedgen_jax.data.examples import Center, of_split, take
from fedgen_jax.data.source import draw
from fedgen_jax.evaluate import canonical, model_of, score, seen_statistics, statistic_of
from fedgen_jax.files import write_json
from fedgen_jax.hypernet import descriptor
from fedgen_jax.onboard import recalculate
from fedgen_jax.program import num_bytes
from fedgen_jax.registry import choose
from fedgen_jax.report.gather import cloud_of, finished, read_lines, read_summary, strip_of
from fedgen_jax.report.page import COLUMNS, Section, Strip, Table, write_report
from fedgen_jax.report.summaries import base_of
from fedgen_jax.report.words import headline, readable, titled
from fedgen_jax.run import Run, Trained
from fedgen_jax.statistics import Statistics
from fedgen_jax.tasks import TASKS
from fedgen_jax.tasks.base import View
from fedgen_jax.train import train
from launch import cli

_TASK = flags.DEFINE_string('task', 'classification', f'one of {", ".join(TASKS)}')
_WORKDIR = flags.DEFINE_string('workdir', None, 'where the runs and the report are written')

OURS, BASE, PUBLISHED, ALONE = 'FedGen', 'FedAvg, every add-on', 'FedAvg', 'Local only'
NEW_SCANNER = 1  # of the first seen center; training saw its scanner 0


def main():
    choose('task', _TASK.value, TASKS)
    tell(demo.get_config(_TASK.value), pathlib.Path(_WORKDIR.value))


def tell(config: ConfigDict, workdir: pathlib.Path, progress: bool = True) -> pathlib.Path:
    """The whole story: trains, prints the scores, and returns the report's path."""
    started = time.monotonic()
    for name, changes in demo.RUNS.items():
        own = config.copy_and_resolve_references()
        own.update_from_flattened_dict(changes)
        train(own, workdir / name, progress)
    ours, published, alone = (read_summary(workdir / name) for name in demo.RUNS)
    summaries = {OURS: ours, BASE: base_of(ours), PUBLISHED: published, ALONE: alone}

    run, fedgen = finished(workdir / 'fedgen')
    _, fedavg = finished(workdir / 'fedavg')
    center = rescanned(run)
    change = update(fedgen, fedavg, center)
    write_json(workdir / 'update.json', change)

    metric = headline(ours)
    print(f'\n{titled(metric)} on held-back images')
    print_scores(summaries, metric)
    print_ladder(summaries, metric)
    print_update(change, metric)
    path = workdir / 'report.html'
    report(path, summaries, workdir, run, fedgen, fedavg, center, change, metric)
    print(f'\n{time.monotonic() - started:.0f} s; open in a browser: {path}')
    return path


def rescanned(run: Run) -> Center:
    """The first seen center after it changed its scanner: the same cells, another acquisition."""
    d = run.config.data
    made = draw(
        d.centers, d.examples, d.image_size, run.config.seed, d.spread,
        run.program.task.target, NEW_SCANNER, d.cache or None,
    )
    return next(c for c in made.centers if c.name == run.seen[0].name)


def update(fedgen: Trained, fedavg: Trained, new: Center) -> dict:
    """The first seen center's data become `new`: its model and the center model, re-calculated.

    Nobody trains: the center sends the difference of its sums, and each model is one forward pass.
    The models that were made before took canonical input and batch statistics from the old images.
    """
    old = fedgen.seen[0]
    images, new_images = of_split(old, 'train'), of_split(new, 'train')
    own = seen_statistics(fedgen)
    pooled = descriptor.pool(own.values())
    started = time.monotonic()
    statistic = statistic_of(fedgen, new_images)
    after = recalculate(Statistics(own, pooled), {old.name: statistic})
    refined = model_of(fedgen, new_images, m_E=after.refined_E[old.name])
    center_model = model_of(fedgen, new_images, m_E=after.center_model_E)
    jax.block_until_ready((refined, center_model))
    seconds = time.monotonic() - started

    base = fedgen._replace(program=fedgen.program.base)
    rows = {
        OURS: (fedgen, model_of(fedgen, images, 0), refined),
        'Center model': (
            fedgen, model_of(fedgen, images, m_E=descriptor.mean(pooled)), center_model
        ),
        BASE: (base, *(model_of(base, x, 0) for x in (images, new_images))),
        PUBLISHED: (fedavg, *[model_of(fedavg, images, 0)] * 2),
    }
    test, new_test = of_split(old, 'test'), of_split(new, 'test')

    def scores(place, on):
        return {name: score(row[0], row[place], on) for name, row in rows.items()}

    return {
        'center': old.name,
        'old_data': scores(1, test),
        'made_before': scores(1, new_test),
        'made_anew': scores(2, new_test),
        'cost': {
            'seconds': seconds,
            'bytes_up': statistic.total.nbytes + 8,
            'bytes_down': num_bytes(fedgen.shared),
            'steps': 0,
            'steps_at_others': 0,
            'bytes_at_others': 0,
        },
    }


def print_scores(summaries: dict, metric: str) -> None:
    """Seen centers, then the unseen ones, a line a method."""
    for group, title in (
        ('seen', 'seen centers, mean (worst)'),
        ('unseen', 'unseen center, zero-shot from its unlabelled images, mean (worst)'),
    ):
        print(f'\n{title}')
        for method, blocks in summaries.items():
            mean, worst = (blocks[group][level][metric] for level in ('mean', 'worst'))
            print(f'  {method:<28} {mean:.3f}  ({worst:.3f})')


def ladder(summaries: dict, metric: str) -> list[tuple[str, float, float]]:
    """(what is added, seen, unseen), from FedAvg as published to FedGen with all its parts."""
    ours, base, published = (summaries[name] for name in (OURS, BASE, PUBLISHED))
    steps = [
        ('FedAvg, as published', published['seen'], published['unseen']),
        ('+ canonical input, shifts', base['own']['generated'], base['unseen']),
        ('+ generator', ours['own']['generated'], ours['unseen']),
        ('+ own model of a seen center', ours['seen'], ours['unseen']),
    ]
    return [(name, *(block['mean'][metric] for block in blocks)) for name, *blocks in steps]


def print_ladder(summaries: dict, metric: str) -> None:
    """What each part adds."""
    print('\nwhat each part adds: seen, unseen')
    for name, seen, unseen in ladder(summaries, metric):
        print(f'  {name:<28} {seen:.3f}  {unseen:.3f}')


def print_update(change: dict, metric: str) -> None:
    """The changed center's models on its new data."""
    print(f'\n{change["center"]} gets a new scanner; on its new images, made before and made anew')
    for name, anew in change['made_anew'].items():
        before = change['made_before'][name]
        print(f'  {name:<28} {before[metric]:.3f}  {anew[metric]:.3f}')
    cost = change['cost']
    print(
        f'  re-calculated in {1e3 * cost["seconds"]:.0f} ms; {cost["bytes_up"]:,} bytes sent; '
        f'{cost["steps"]} steps there, {cost["steps_at_others"]} at others'
    )


LEDE = (
    'FedGen trains one model across centers without moving their images, and generates a refined '
    'model for each from the distribution of its unlabelled images. Here {seen} synthetic '
    'hospitals train, each with its own stain, microscope, camera and mix of classes; {unseen} '
    'join afterwards, with unlabelled images only, and {changed} gets a new scanner. All methods '
    'had the same images, network and number of steps.'
)


def report(path, summaries, workdir, run, fedgen, fedavg, center, change, metric) -> None:
    """Gathers what the page shows, and writes it."""
    clouds = [cloud_of(fedgen, c, 'seen') for c in run.seen]
    clouds += [cloud_of(fedgen, c, 'unseen') for c in run.unseen]
    clouds.append(cloud_of(fedgen, center, 'updated'))

    def strip(c, kind, client=None):
        models = {OURS: (fedgen, client), PUBLISHED: (fedavg, client)}
        return strip_of(models, c, kind, 'test')

    strips = [strip(c, 'seen', i) for i, c in enumerate(run.seen)]
    strips.insert(1, strip(center, 'updated'))
    strips += [strip(c, 'unseen') for c in run.unseen]
    write_report(
        path,
        title=f'FedGen on synthetic centers: {run.config.task}',
        lede=LEDE.format(
            seen=len(run.seen), unseen=' and '.join(c.name for c in run.unseen),
            changed=change['center'],
        ),
        summaries=summaries,
        lines={name: read_lines(workdir / a) for name, a in LINES.items()},
        clouds=clouds,
        strips=strips,
        sections=[
            ladder_section(summaries, metric),
            canonical_section(fedgen),
            update_section(change, metric),
        ],
        tiles=tiles(summaries, change, metric),
    )


LINES = {OURS: 'fedgen', PUBLISHED: 'fedavg', ALONE: 'local_only'}


def tiles(summaries: dict, change: dict, metric: str) -> list[tuple[str, str]]:
    """The three numbers of the story, each beside FedAvg's."""
    name = readable(metric)

    def means(group):
        ours, base, published = (
            f'{summaries[k][group]["mean"][metric]:.3f}' for k in (OURS, BASE, PUBLISHED)
        )
        return ours, f'; FedAvg {published}, with every add-on {base}'

    seen, other_seen = means('seen')
    unseen, other_unseen = means('unseen')
    anew, before = (change[k][OURS][metric] for k in ('made_anew', 'made_before'))
    return [
        (seen, f'{name} at the seen centers{other_seen}'),
        (unseen, f'at unseen centers, zero-shot{other_unseen}'),
        (
            f'{anew:.3f}',
            f'at {change["center"]} after its new scanner, with 0 steps; {before:.3f} with the '
            f'model made before, FedAvg {change["made_anew"][PUBLISHED][metric]:.3f}',
        ),
    ]


def ladder_section(summaries: dict, metric: str) -> Section:
    """The table of what each part adds."""
    rows = [[name, f'{a:.3f}', f'{b:.3f}'] for name, a, b in ladder(summaries, metric)]
    chosen = summaries[OURS]['own']['chosen']
    told = ', '.join(f'{center} {kind.replace("_", "-")}' for center, kind in chosen.items())
    return Section(
        'What each part adds',
        'Each row adds one thing to the row above. The base is the same to the bit in the second '
        'and third row. In the last, each seen center keeps the best on its validation images of '
        'the generated model, that model fine-tuned on its labels, and one that it learned alone.',
        Table(
            titled(metric), ['', 'seen centers', 'unseen centers'], rows,
            f'Chosen by FedGen\'s seen centers: {told}.',
        ),
    )


def canonical_section(fedgen: Trained) -> Section:
    """Unlabelled images of each center, as they are and on canonical input."""

    def strip(center, kind):
        images = of_split(center, 'train')
        some = take(images, slice(COLUMNS))
        moved = canonical(fedgen, images, some)
        columns = [
            [View(np.asarray(a), 'as it is'), View(np.asarray(b), 'canonical')]
            for a, b in zip(some.image, moved.image)
        ]
        return Strip(center.name, kind, columns)

    return Section(
        'Canonical input',
        'Before any model sees them, a center\'s images are brought to the background, stain '
        'density and magnification of the seen centers together. The change is computed from '
        'unlabelled images, and is one for all images of a center.',
        strips=[
            *(strip(c, 'seen') for c in fedgen.seen[:3]),
            *(strip(c, 'unseen') for c in fedgen.unseen),
        ],
    )


def update_section(change: dict, metric: str) -> Section:
    """The table of the changed center."""
    kinds, cost = ('old_data', 'made_before', 'made_anew'), change['cost']
    rows = [
        [name, *(f'{change[kind][name][metric]:.3f}' for kind in kinds)]
        for name in change['made_anew']
    ]
    return Section(
        'A center changes its scanner',
        f'{change["center"]} photographs the same cells with another stain, microscope and camera. '
        f'It sends the difference of its sums ({cost["bytes_up"]:,} bytes), and its model and the '
        f'center model are re-calculated in {1e3 * cost["seconds"]:.0f} ms, without labels: '
        f'{cost["steps"]} training steps there, {cost["steps_at_others"]} steps and '
        f'{cost["bytes_at_others"]} bytes at every other center.',
        Table(
            titled(metric),
            ['', 'old scanner', 'new scanner, model made before', 'new scanner, made anew'],
            rows,
            'Test images, the same cells in all columns; generated models, without a center\'s '
            'labels. FedAvg with every add-on takes its canonical input and batch statistics anew.',
        ),
    )


if __name__ == '__main__':
    flags.mark_flag_as_required('workdir')
    cli.run(main)
