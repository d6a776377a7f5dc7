"""Image operations around the networks: arrays in, arrays out."""
