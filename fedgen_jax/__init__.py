"""Federated learning across medical centers, with a model generated for each.

What a notebook needs:

    config = fedgen_jax.defaults()                      # every field of a configuration
    summary = fedgen_jax.train(config, 'runs/first')
    scores = fedgen_jax.evaluate('runs/first')          # again, from the checkpoint
    fedgen_jax.onboard('runs/first', data='new_center')
    run = fedgen_jax.load('runs/first')                 # its models and weights
    run.model('CENTER')('picture.png')                  # what one of them says of an image
"""

from fedgen_jax.config import base as defaults
from fedgen_jax.loaded import load
from fedgen_jax.onboard import onboard
from fedgen_jax.summary import evaluate_run as evaluate
from fedgen_jax.train import train

__all__ = ['defaults', 'evaluate', 'load', 'onboard', 'train']
