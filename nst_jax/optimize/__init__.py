"""How it is minimized: optimizers, their coordinates, the compiled loop, and what moves the weights."""
