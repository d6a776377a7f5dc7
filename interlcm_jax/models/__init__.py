"""The networks of InterLCM in Flax NNX: arrays in, arrays out, NHWC."""
