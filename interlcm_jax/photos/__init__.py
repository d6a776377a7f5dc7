"""Photos in, photos out: one image or many files, through faces restored in shared batches."""
