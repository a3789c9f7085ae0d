"""Public sets without centers, cut into clients."""
