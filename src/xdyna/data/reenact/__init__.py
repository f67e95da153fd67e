"""Cross-identity face patches: another person's face with the target's expression and head pose.

`FaceSource` is what training asks. `Reenactor` is built in and warps pictures of a `Gallery`; `load_source` also knows
`SameFace`, which leaks identity, and networks of the user's. `cache_faces` does the work beforehand. Nothing here is
used when a picture is animated: then the driver's own face is cut.
"""

from xdyna.data.face_source import FaceSource
from xdyna.data.reenact.cache import CachedFaces, CacheJob, cache_all, cache_faces
from xdyna.data.reenact.gallery import (
    Face,
    Gallery,
    clip_face,
    cut_face,
    folder_gallery,
    gallery_of,
    synthetic_gallery,
)
from xdyna.data.reenact.measure import Agreement, agreement
from xdyna.data.reenact.plugin import CommandFace, PluginFace, load_source
from xdyna.data.reenact.source import STILL_LIFE, ReenactOptions, Reenactor, SameFace

__all__ = [
    "STILL_LIFE", "Agreement", "CacheJob", "CachedFaces", "CommandFace", "Face", "FaceSource", "Gallery",
    "PluginFace", "ReenactOptions", "Reenactor", "SameFace", "agreement", "cache_all", "cache_faces", "clip_face",
    "cut_face", "folder_gallery", "gallery_of", "load_source", "synthetic_gallery",
]  # fmt: skip
