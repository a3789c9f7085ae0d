"""What a report shows of a finished run: its curves, its descriptors and example images."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from fedgen_jax import renamed
from fedgen_jax.answers import finished
from fedgen_jax.config import base
from fedgen_jax.data.examples import Center, adapted_on, of_split, take
from fedgen_jax.evaluate import canonical, metrics_in
from fedgen_jax.files import read_json, read_json_lines
from fedgen_jax.loaded import model_as_scored
from fedgen_jax.report.canonical import canonical_section, has_canonical
from fedgen_jax.report.changes import Changes, changes_of, clouds_of, section_of
from fedgen_jax.report.classes import class_sections
from fedgen_jax.report.figures import Cloud
from fedgen_jax.report.page import COLUMNS, SUBSET_SIZE, Section, Strip, Table, write_report
from fedgen_jax.report.summaries import check_sizes, checked
from fedgen_jax.report.words import NONE, headline, titled
from fedgen_jax.run import Run, Trained, is_discreet, read_federation
from fedgen_jax.schema import Summary
from fedgen_jax.settings import differences, settings_of
from fedgen_jax.tasks.base import View

SUBSETS = 30
STRIPS = 24  # seen and unseen centers, each at most, whose images are shown


def read_lines(workdir: str | pathlib.Path) -> list[dict]:
    """The lines of a run's `metrics.jsonl`."""
    return read_json_lines(pathlib.Path(workdir) / 'metrics.jsonl')


def cloud_of(done: Trained, center: Center, kind: str) -> Cloud:
    """A center's (learned) descriptor, and those of random subsets of its training images."""
    assert done.program.describe is not None
    images = adapted_on(center)
    vectors_NxE = done.program.describe(done.shared, canonical(done, images, images).image)
    rng = np.random.default_rng(0)
    size = min(SUBSET_SIZE, len(vectors_NxE))
    subsets = [
        vectors_NxE[rng.choice(len(vectors_NxE), size, replace=False)].mean(0)
        for _ in range(SUBSETS)
    ]
    return Cloud(center.name, kind, vectors_NxE.mean(0), np.stack(subsets))


def strip_of(
    models: Mapping[str, tuple[Trained, Any]],
    center: Center,
    kind: str,
    split: str,
    named: bool = True,
) -> Strip:
    """The first images of a center's split, with what models say of them.

    models: name -> (federation, variables of the center's model there).
    named:  whether a caption begins with the model's name.
    """
    images = of_split(center, split)
    examples = take(images, np.arange(min(COLUMNS, len(images.weight))))
    columns: list[list[View]] = [[] for _ in examples.weight]
    for name, (done, variables) in models.items():
        predictions = done.program.predict(variables, examples.image)
        for i, column in enumerate(columns):
            image, target, said = jax.tree.map(lambda x, i=i: x[i], (*examples[:2], predictions))
            show = done.program.task.show
            view = show(image, target, said)
            caption = f'{name}: {view.caption}' if named else view.caption
            column += [] if column else [show(image, target, None)]
            column.append(view._replace(caption=caption))
    return Strip(center.name, kind, columns)


def images_of(run: Run) -> tuple:
    """What two runs must have in common to stand side by side: task, split, images."""
    c = run.config
    centers = [
        [(x.name, x.path, x.split.tobytes(), np.asarray(x.examples.image[0]).tobytes()) for x in of]
        for of in (run.seen, run.unseen)
    ]
    return c.task, c.seed, c.score_on, c.data.image_size, run.classes, centers


def privacy_section(name: str, told: Mapping[str, Any]) -> Section:
    """What a run promises and what it spent, from the `privacy` block of its summary.

    name: the run's, for the text.
    """
    rows = [
        [x['name'], f'{x["count"]}', f'{x["sigma"]:.3g}', f'{x["sensitivity"]:.3g}',
         f'{x["epsilon_alone"]:.2f}', f'{x["epsilon_without"]:.2f}']
        for x in told['charges']
    ]
    epsilons = [of['epsilon'] for of in told['by_center'].values()]
    return Section(
        'Privacy',
        f'Of {name}. Unit: {told["unit"]}. Epsilon {told["epsilon"]:.2f} of at most '
        f'{told["epsilon_target"]:g} at delta {told["delta"]:g}, between {min(epsilons):.2f} and '
        f'{max(epsilons):.2f} by ledger. Trust: {told["trust"]}. Randomness: '
        f'{told["randomness"]}. {_audited(told.get("audit"))}'
        f'Not covered: {"; ".join(told["not_covered"])}. This page shows no '
        'image and no descriptor of a center: they would tell more than the budget allows.',
        Table(
            '',
            ['', 'releases', 'noise multiplier', 'sensitivity', 'epsilon alone',
             'epsilon of the others'],
            rows,
            f'One {told["unit"]} more or less changes the chance of any outcome by a factor of at '
            'most exp(epsilon), but for a probability of delta.',
        ),
    )


def _audited(found: Mapping[str, Any] | None) -> str:
    """What canaries found, if they were asked (`launch.audit`)."""
    if not found:
        return 'Not audited (launch.audit). '
    return (
        f'Audited with {found["canaries"]:,} canaries: epsilon of training, stated as '
        f'{found["stated"]:.2f}, is at least {found["lower_bound"]:.2f} with '
        f'{found["confidence"]:.0%} confidence, if its trade-off is a Gaussian\'s'
        + (', WHICH REFUTES IT' if found['refuted'] else '')
        + f', and with a sixth of the noise at least {found["sixth_of_the_noise"]:.2f}. '
    )


def by_section(workdir: pathlib.Path, name: str, summary: Summary, metric: str) -> list[Section]:
    """The scores by a column that `launch.evaluate --by` has left, if of the run as it is."""
    file = workdir / 'evaluation.json'
    told = read_json(file) if file.is_file() else {}
    by = told.get('by')
    if not by or any(told.get(k) != summary[k] for k in ('rounds', 'resolution')):
        return []
    if not _alike(told['seen'], summary['seen']):  # launch.evaluate --data: of other images
        return []
    made, now, default = summary['config'], renamed.config(told['config']), settings_of(base())
    if differences(made, now, default) or differences(now, made, default):
        return []
    groups = {'seen': by['seen'], 'unseen': by['unseen'] or {}}
    scores = [of for group in groups.values() for of in group.values()]
    metrics = list(dict.fromkeys([metric, *(m for of in scores for m in metrics_in(of))]))
    rows = [
        [value, group, str(of['n']), *(f'{of[m]:.3f}' if m in of else NONE for m in metrics)]
        for value in dict.fromkeys(v for of in groups.values() for v in of)
        for group, found in groups.items() if value in found
        for of in [found[value]]
    ]
    return [Section(
        f'By {by["column"]}',
        f'Scores of {name} on the images that share a value of the column {by["column"]!r} of the '
        "table, taken together over centers, each under its own center's model.",
        Table('', ['', 'centers', 'images', *map(titled, metrics)], rows),
    )]


def _alike(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two blocks of scores are of the same images, but for rounding."""
    counts = [{name: of['n'] for name, of in x['centers'].items()} for x in (a, b)]
    near = (np.isclose(a['mean'].get(k, np.inf), x, 0.02, 0.005) for k, x in b['mean'].items())
    return counts[0] == counts[1] and all(near)


def read_summary(folder: pathlib.Path) -> Summary:
    """A finished run's summary, in today's names."""
    file = folder / 'summary.json'
    if not file.is_file():
        raise ValueError(f'{file}: missing: let launch.train finish the run')
    return checked(renamed.summary(read_json(file)), file)


def distinct(summaries: Mapping[pathlib.Path, Summary]) -> dict[str, pathlib.Path]:
    """{name: folder} of runs: the title, with method or folder where others have it too."""

    def names(write):
        return [write(folder, s) for folder, s in summaries.items()]

    found = names(lambda folder, s: s['title'])
    if len(set(found)) < len(found):
        found = names(lambda folder, s: f'{s["title"]} ({s["method"]})')
    if len(set(found)) < len(found):
        found = names(lambda folder, s: f'{s["title"]} of {folder}')
    return dict(zip(found, summaries))


def report_run(
    workdir: str | pathlib.Path, beside: str | pathlib.Path | None = None
) -> pathlib.Path:
    """Writes `report.html` into a finished run's folder, and returns its path.

    beside: another run on the same centers, whose scores and pictures stand beside its own.
    """
    workdir = pathlib.Path(workdir)
    if (workdir / 'deployed.json').is_file():
        if beside:
            raise ValueError(f'--beside={beside}: {workdir} is a deployed run, without images')
        return report_deployed(workdir)
    folders = [workdir, *([pathlib.Path(beside)] if beside else [])]
    found = {folder: read_summary(folder) for folder in folders}
    if len(found) < len(folders):
        raise ValueError(f'--beside={beside}: this is the run itself: name another')
    check_sizes(found.values(), ', '.join(map(str, folders)))
    names = distinct(found)
    summaries = {name: found[folder] for name, folder in names.items()}
    models = {name: finished(folder) for name, folder in names.items()}
    (run, done), *others = models.values()
    for folder, (other, _) in zip(folders[1:], others):
        if images_of(other) != images_of(run):
            raise ValueError(
                f'{folder}: has not the images of {workdir}: task, seed, score_on and all of data '
                'must be the same'
            )
    title, first = next(iter(summaries.items()))

    def strip(center, kind, client):
        said_by = {
            name: (fed, model_as_scored(names[name], fed, center, client))
            for name, (_, fed) in models.items()
            if client is not None or summaries[name]['server_model']
        }
        return strip_of(said_by, center, kind, run.config.score_on, len(models) > 1)

    centers: list[tuple[Center, str, int | None]]
    centers = [(c, 'seen', i) for i, c in enumerate(run.seen)]
    centers += [(c, 'unseen', None) for c in run.unseen]
    # Of a private run the page shows neither images nor exact descriptors of a center.
    private = any(is_discreet(run.config) for run, _ in models.values())
    changes = changes_of(workdir, [c.name for c in run.seen])
    described = done.program.describe and not private
    clouds = [cloud_of(done, *x[:2]) for x in centers] if described else []
    if changes and not private:
        clouds = [c._replace(kind='left') if c.name in changes.removed else c for c in clouds]
        clouds += clouds_of(changes, [c.name for c in run.unseen])
    shown = [x for x in centers if x[1] == 'seen'][:STRIPS]
    shown += [x for x in centers if x[1] == 'unseen'][:STRIPS]
    shown = [] if private else shown
    path = workdir / 'report.html'
    write_report(
        path,
        title=f'{title}: {first["task"]}',
        lede=f'Seen centers: {len(run.seen)}; unseen: {len(run.unseen)}. '
        f'{first["rounds"]} rounds, seed {first["seed"]}.',
        summaries=summaries,
        lines={name: read_lines(folder) for name, folder in names.items()},
        clouds=clouds,
        strips=[s for s in (strip(*x) for x in shown) if s.columns and s.columns[0]],
        sections=sections_of(workdir, summaries, run, done, changes, private),
    )
    return path


def report_deployed(workdir: pathlib.Path) -> pathlib.Path:
    """`report_run` of a deployed run: what its centers told, and no image of any."""
    if not (workdir / 'summary.json').is_file():
        raise ValueError(
            f'{workdir}/summary.json: missing: a deployed run is not finished, or no center told '
            'scores of one kind (launch.center --noscores)'
        )
    summary = read_summary(workdir)
    names, told = read_federation(workdir)['seen'], summary['seen']['centers']
    changes = changes_of(workdir, names)
    sections = class_sections(summary['title'], summary)
    path = workdir / 'report.html'
    write_report(
        path,
        title=f'{summary["title"]}: {summary["task"]}',
        lede=f'A deployed run between {len(names)} centers: the scores are those that '
        f'{"each" if len(told) == len(names) else f"{len(told)} of them"} told of its own images, '
        'which stay there. '
        f'{summary["rounds"]} rounds, seed {summary["seed"]}.',
        summaries={summary['title']: summary},
        lines={summary['title']: read_lines(workdir)},
        sections=[*sections, *([section_of(changes, headline(summary))] if changes else [])],
    )
    return path


def sections_of(
    workdir: pathlib.Path,
    summaries: Mapping[str, Summary],
    run: Run,
    done: Trained,
    changes: Changes | None,
    private: bool,
) -> list[Section]:
    """What a page tells beside scores, curves and pictures; the first summary is the run's."""
    title, first = next(iter(summaries.items()))
    sections = class_sections(title, first)
    sections += by_section(workdir, title, first, headline(first))
    sections += [
        privacy_section(name, x['privacy']) for name, x in summaries.items()
        if x['privacy'].get('unit')
    ]
    if has_canonical(run.config) and not private:
        sections.append(canonical_section(run.config, done, run.config.score_on))
    return [*sections, *([section_of(changes, headline(first), private)] if changes else [])]
