"""Frames decoded while you read them: for clips longer than memory, or for your own writer.

python examples/stream.py PHOTO VIDEO FOLDER
"""

import sys
from pathlib import Path

from xdyna import AnimateOptions, XDynaPipeline
from xdyna.media import write_image

photo, video, folder = sys.argv[1:4]
animation = XDynaPipeline.from_pretrained("embedded").animate(photo, video, options=AnimateOptions(frames=4))
for index, frame in enumerate(animation.frames):
    write_image(Path(folder) / f"{index:04d}.png", frame)
animation.close()
