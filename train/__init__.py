"""Training of generators: data, networks, losses and the training loop; needs torch."""
