"""The training loop: steps, losses, loaders, learning rates, logs, several processes."""
