"""Training with the pixels that show the bias hidden, in parts."""
