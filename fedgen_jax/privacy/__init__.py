"""What stands between clients and the sum (`base.Protection`)."""

from fedgen_jax.privacy.base import Message, Protection, chain, clip, nothing

__all__ = ['Message', 'Protection', 'chain', 'clip', 'nothing']
