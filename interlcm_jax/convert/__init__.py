"""Weights between PyTorch's file formats and the model folder, both ways, strictly."""
