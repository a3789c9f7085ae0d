"""What a report shows of a finished run: its curves, its descriptors and example images."""

import json
import pathlib
from collections.abc import Mapping

import jax
import numpy as np

from fedgen_jax.data.examples import Center, Examples, of_split, take
from fedgen_jax.evaluate import model_of
from fedgen_jax.report.figures import Cloud
from fedgen_jax.report.page import COLUMNS, SUBSET_SIZE, Strip, write_report
from fedgen_jax.run import Run, Trained, reopen, trained

NAMES = {'fedgen': 'FedGen', 'fedavg': 'FedAvg', 'local': 'Local only'}
SUBSETS = 30


def finished(workdir: str | pathlib.Path) -> tuple[Run, Trained]:
    """A run from its folder, with its images and its last checkpoint."""
    done, run = reopen(workdir)
    return run, trained(run, done.state, done.private_C)


def read_lines(workdir: str | pathlib.Path) -> list[dict]:
    """The lines of a run's `metrics.jsonl`."""
    text = (pathlib.Path(workdir) / 'metrics.jsonl').read_text()
    return [json.loads(line) for line in text.splitlines()]


def cloud_of(done: Trained, center: Center, kind: str) -> Cloud:
    """A center's descriptor, and those of random subsets of its training images."""
    vectors_NxE = done.program.describe(done.shared, adapted_on(center).image)
    rng = np.random.default_rng(0)
    size = min(SUBSET_SIZE, len(vectors_NxE))
    subsets = [
        vectors_NxE[rng.choice(len(vectors_NxE), size, replace=False)].mean(0)
        for _ in range(SUBSETS)
    ]
    return Cloud(center.name, kind, vectors_NxE.mean(0), np.stack(subsets))


def strip_of(
    models: Mapping[str, tuple[Trained, int | None]], center: Center, kind: str, split: str
) -> Strip:
    """The first images of a center's split, with what models say of them.

    models: name -> (federation, the center's number in it; None: a stranger there).
    """
    images = of_split(center, split)
    examples = take(images, np.arange(min(COLUMNS, len(images.weight))))
    columns = [[] for _ in examples.weight]
    for name, (done, client) in models.items():
        variables = model_of(done, adapted_on(center), client)
        predictions = done.program.predict(variables, examples.image)
        for i, column in enumerate(columns):
            image, target, said = jax.tree.map(lambda x, i=i: x[i], (*examples[:2], predictions))
            show = done.program.task.show
            view = show(image, target, said)
            caption = f'{name}: {view.caption}' if len(models) > 1 else view.caption
            column += [] if column else [show(image, target, None)]
            column.append(view._replace(caption=caption))
    return Strip(center.name, kind, columns)


def images_of(run: Run) -> tuple:
    """What two runs share whose scored images are the same."""
    c = run.config
    centers = [
        [(x.name, x.path, x.split.tobytes(), np.asarray(x.examples.image[0]).tobytes()) for x in of]
        for of in (run.seen, run.unseen)
    ]
    return c.task, c.seed, c.score_on, c.data.image_size, run.classes, centers


def adapted_on(center: Center) -> Examples:
    """The unlabelled images that a center's model is made from."""
    train = of_split(center, 'train')
    return train if len(train.weight) else center.examples


def report_run(
    workdir: str | pathlib.Path, beside: str | pathlib.Path | None = None
) -> pathlib.Path:
    """Writes `report.html` into a finished run's folder, and returns its path.

    beside: another run on the same centers, whose scores and pictures stand beside its own.
    """
    workdir = pathlib.Path(workdir)
    folders = [workdir, *([pathlib.Path(beside)] if beside else [])]
    summaries, lines, models = {}, {}, {}
    for folder in folders:
        if not (folder / 'summary.json').is_file():
            raise ValueError(f'{folder}/summary.json: missing: let launch.train finish the run')
        summary = json.loads((folder / 'summary.json').read_text())
        name = NAMES[summary['algorithm']]
        if name in summaries:
            name = f'{name} of {folder.name}'
        summaries[name], lines[name], models[name] = summary, read_lines(folder), finished(folder)
    (run, done), *others = models.values()
    for folder, (other, _) in zip(folders[1:], others):
        if images_of(other) != images_of(run):
            raise ValueError(
                f'{folder}: has not the images of {workdir}: task, seed, score_on and all of data '
                'must be the same'
            )
    first = next(iter(summaries.values()))

    def strip(center, kind, client):
        shown = {
            name: (fed, client) for name, (_, fed) in models.items()
            if client is not None or fed.program.algorithm.server_model
        }  # fmt: skip
        return strip_of(shown, center, kind, run.config.score_on)

    centers = [(c, 'seen', i) for i, c in enumerate(run.seen)]
    centers += [(c, 'unseen', None) for c in run.unseen]
    path = workdir / 'report.html'
    write_report(
        path,
        title=f'{next(iter(summaries))}: {first["task"]}',
        lede=f'Seen centers: {len(run.seen)}; unseen: {len(run.unseen)}. '
        f'{first["rounds"]} rounds, seed {first["seed"]}.',
        summaries=summaries,
        lines=lines,
        clouds=[cloud_of(done, c, kind) for c, kind, _ in centers] if done.program.describe else (),
        strips=[s for s in (strip(*x) for x in centers) if s.columns and s.columns[0]],
    )
    return path
