"""A center folder on disk, in the format that people bring."""
