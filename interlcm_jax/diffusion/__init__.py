"""The LCM schedule as pure maths, and the few-step sampler over any denoiser; no networks here."""
