"""Example pictures, free of rights: three photographs, and four style pictures drawn by `draw.py`."""
