"""Put three places of two pictures of 1500 x 1000 pixels side by side: poster.jpg; see gallery.sh."""

import sys

from PIL import Image

PLACES = ((520, 560), (1020, 60), (150, 250))  # left and top of each, in pixels
WIDTH, HEIGHT = 440, 300

pictures = [Image.open(path).convert("RGB") for path in sys.argv[1:3]]
sheet = Image.new("RGB", (2 * WIDTH + 8, 3 * HEIGHT + 16), "white")
for row, (left, top) in enumerate(PLACES):
    for column, picture in enumerate(pictures):
        part = picture.crop((left, top, left + WIDTH, top + HEIGHT))
        sheet.paste(part, (column * (WIDTH + 8), row * (HEIGHT + 8)))
sheet.save("poster.jpg", quality=88)
pictures[1].resize((900, 600), Image.Resampling.LANCZOS).save("poster-whole.jpg", quality=88)
