"""The workshop: data, networks, losses and the training loop (needs torch)."""
