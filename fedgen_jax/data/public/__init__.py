"""Public data: forms without centers, cut into clients, and sets by name (`catalog`)."""
