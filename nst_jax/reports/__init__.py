"""What is told of runs: reports, plots and contact sheets."""
