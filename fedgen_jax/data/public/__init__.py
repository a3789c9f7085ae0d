"""Public sets that know no centers, cut into clients."""
