"""The machine: its devices, its memory, and the processes that share a picture."""
