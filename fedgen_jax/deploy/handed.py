"""A center's finished model, in a folder at the center that is opened as a run's.

    fedgen_jax.load('SITE/model').model('NAME')
    python -m launch.predict --workdir=SITE/model --center=NAME --images=PICTURES --to=OUT
"""

import pathlib
import shutil
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fedgen_jax import checkpoint
from fedgen_jax.engine.rounds import client_mesh, init_run
from fedgen_jax.federation import federation_of
from fedgen_jax.files import write_json
from fedgen_jax.kept import Kept, write_model
from fedgen_jax.run import Run, Trained, write_reference


def hand_over(
    folder: pathlib.Path, run: Run, trained: Trained, variables: Any, made: str,
    data: pathlib.Path, clients: int,
) -> None:
    """Writes the folder anew: the model, and of the run what its reader needs; exports stay.

    made: by 'training', or by 'onboard'.  data: the center's folder of images.  clients: how many
    centers the run has.
    """
    (center,), program, rounds = run.seen, run.program, run.config.rounds
    now = folder.with_name(f'{folder.name}.new')
    shutil.rmtree(now, ignore_errors=True)
    now.mkdir(parents=True, mode=0o700)
    config = ConfigDict(run.config.to_dict())
    config.data.root = str(data)
    write_json(now / 'config.json', config.to_dict())
    federation = federation_of(run.classes, (center,), (), from_files=True)
    write_json(now / 'federation.json', {**federation, 'clients': clients})
    write_reference(now, run)
    first, private_1 = init_run(
        program.algorithm, client_mesh(1), run.key, np.zeros(1, np.int32), program.protection
    )
    if trained.private_C is not None:
        private_1 = trained.private_C
    state = first._replace(shared=trained.shared)
    with checkpoint.manager(now) as checkpoints:
        checkpoint.save(checkpoints, rounds, (state, jax.device_get(private_1)))
    kept = Kept(center.name, 'refined', made, rounds, variables, center.window)
    write_model(now, kept)
    if (folder / 'export').is_dir():
        (folder / 'export').rename(now / 'export')
    shutil.rmtree(folder, ignore_errors=True)
    now.rename(folder)
