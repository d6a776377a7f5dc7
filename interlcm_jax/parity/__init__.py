"""Proof that a JAX network and its PyTorch twin agree, module by module; needs the extra `parity`."""
