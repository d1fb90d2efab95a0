"""One absl program per module: flags in, files out."""
