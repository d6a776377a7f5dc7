"""Videos in, videos out: faces are tracked, steadied and restored segment by segment."""
