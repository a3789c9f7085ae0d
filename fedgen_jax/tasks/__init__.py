"""Tasks: values that carry their loss, prediction and metrics (`base.Task`)."""

from fedgen_jax.tasks.base import Task
from fedgen_jax.tasks.classification import classification

TASKS = {'classification': classification}

__all__ = ['TASKS', 'Task', 'classification']
