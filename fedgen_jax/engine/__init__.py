"""The engine: the only part that knows of `vmap`, `lax.map`, meshes and devices."""
