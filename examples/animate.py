"""The shortest way from Python: a picture and a driving video to an mp4.

python examples/animate.py PHOTO VIDEO OUT.mp4
"""

import sys

from xdyna import XDynaPipeline

photo, video, out = sys.argv[1:4]
output = XDynaPipeline.from_pretrained("embedded")(photo, video, frames=8, seed=1)
print(output.save(out, overwrite=True), output.frames.shape)
