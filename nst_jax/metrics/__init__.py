"""How different pictures look: LPIPS, and the metrics of the judge."""
