"""Pixels to control signals: keypoints, alignment, pose drawings and face crops. Numpy and OpenCV only."""
