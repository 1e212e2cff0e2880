"""The engines that come with the package; each has a model card beside it."""
