"""How good restored images are: metrics of one image against its reference, and of whole sets."""
