"""Attacks on a finished run, each with a control that has to come out the other way."""

from fedgen_jax.audit import attributes, canaries, descriptor, differencing, inversion, lira
from fedgen_jax.audit.base import Finding, Subject, subject_of

# {name: Subject -> Finding}, in the order of a page.
AUDITS = {
    'canaries': canaries.audit,
    'descriptor': descriptor.audit,
    'differencing': differencing.audit,
    'attributes': attributes.audit,
    'inversion': inversion.audit,
    'lira': lira.audit,
}

__all__ = ['AUDITS', 'Finding', 'Subject', 'subject_of']
