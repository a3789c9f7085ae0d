"""Methods of the literature, one file each, with their papers and equations."""
