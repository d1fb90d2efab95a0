"""Example pictures, free of rights: three photographs; masks and four style pictures drawn by `draw.py`."""
