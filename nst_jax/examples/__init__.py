"""Example pictures, free of rights: three photographs, masks for them, and four style pictures drawn by `draw.py`."""
