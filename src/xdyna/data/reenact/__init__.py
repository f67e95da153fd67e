"""Cross-identity face patches: another person's face with the target's expression and head pose (paper, section 3).

`FaceSource` is what training asks; `Reenactor` (built in), `SameFace` (which leaks) and `load_source` (a network of
the user's) give it. Nothing here is used when a clip is animated.
"""
