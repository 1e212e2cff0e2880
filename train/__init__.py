"""Training of generators: data, networks, losses and the training loop; needs torch."""

import runtime.libraries  # noqa: F401 - OpenCV before PyAV, and one line where a library is missing
