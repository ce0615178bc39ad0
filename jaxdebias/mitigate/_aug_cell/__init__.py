"""AUG-CELL (ours), in parts."""
