"""Words of a config that the sampler understands; no torch, so that the config check can read them."""

SIMILARITIES = ("latent", "image", "rotation")  # what the repulsion compares particles on: utils/repulsion.py
