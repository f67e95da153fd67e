"""Files to pictures and clips, and back: the only room that reads or writes media files.

Pictures are `(h w 3)` uint8 RGB arrays, clips are `Clip` or iterators of pictures. Whatever is written
appears under its final name only when complete.
"""

from xdyna.media.files import read_json, write_json
from xdyna.media.image import crop_to, middle_box, read_image, write_image
from xdyna.media.sheet import compare_frame, sheet
from xdyna.media.video import Clip, VideoInfo, count_frames, probe, read_clip, stream_frames
from xdyna.media.writer import ClipWriter, write_clip

__all__ = [
    "Clip",
    "ClipWriter",
    "VideoInfo",
    "compare_frame",
    "count_frames",
    "crop_to",
    "middle_box",
    "probe",
    "read_clip",
    "read_image",
    "read_json",
    "sheet",
    "stream_frames",
    "write_clip",
    "write_image",
    "write_json",
]
