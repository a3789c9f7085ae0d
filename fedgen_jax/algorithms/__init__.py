"""Federated algorithms, one file a family; each is a NamedTuple of pure functions (`base`)."""
