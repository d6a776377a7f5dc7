"""The web page of `interlcm demo`: photos dropped into a browser, restored by one model for all its visitors."""
