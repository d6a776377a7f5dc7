"""Training data: NumPy, OpenCV and Pillow alone, for it runs in worker processes."""
