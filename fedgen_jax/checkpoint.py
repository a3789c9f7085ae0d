"""Checkpoints of a run: Orbax's `CheckpointManager`, behind three functions."""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

Tree = Any


def manager(workdir: str | pathlib.Path, keep: int = 2) -> ocp.CheckpointManager:
    """The checkpoints under `workdir`/checkpoints, the last `keep` of them."""
    folder = pathlib.Path(workdir).absolute() / 'checkpoints'
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
    handler = ocp.StandardCheckpointHandler()
    return ocp.CheckpointManager(folder, options=options, item_handlers=handler)


def save(checkpoints: ocp.CheckpointManager, round_: int, tree: Tree) -> None:
    """Saves in the background; the arrays are copied before this returns."""
    checkpoints.save(round_, args=ocp.args.StandardSave(tree))


def restore(checkpoints: ocp.CheckpointManager, like: Tree) -> tuple[int, Tree]:
    """(round, tree) of the last checkpoint; (0, like) where there is none.

    like: arrays whose shapes, types and shardings the restored ones take.
    """
    last = checkpoints.latest_step()
    if last is None:
        return 0, like
    # Compared before reading: a restore that fails half-way leaves reads in the background.
    saved = {x.name: x.shape for x in jax.tree.leaves(checkpoints.item_metadata(last).tree)}
    wanted = {
        jax.tree_util.keystr(path, simple=True, separator='.'): x.shape
        for path, x in jax.tree_util.tree_leaves_with_path(like)
    }
    if saved != wanted:
        name = min(k for k in saved | wanted if saved.get(k) != wanted.get(k))
        raise ValueError(
            f'{checkpoints.directory}: round {last} was saved by another model or algorithm than '
            f'this configuration makes (they differ in {name}): use another workdir'
        )
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    return last, checkpoints.restore(last, args=ocp.args.StandardRestore(abstract))


def save_tree(folder: str | pathlib.Path, tree: Tree) -> None:
    """One pytree in a folder of its own, replacing what was there."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(pathlib.Path(folder).absolute(), tree, force=True)
