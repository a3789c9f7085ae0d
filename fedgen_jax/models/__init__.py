"""Flax linen models.  A model is a module called as `module(x_BxHxWx3, train)`; the names of its
layers say what the generator may change: `input`, `norm_*`, `conv_*` and `head`."""

from fedgen_jax.models.cnn import CNN
from fedgen_jax.models.resnet import ResNet

MODELS = {'cnn': CNN, 'resnet': ResNet}
