"""What people read of runs: the page of one, and the tables over many."""
