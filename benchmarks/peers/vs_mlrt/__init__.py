"""A clip restored to a file by the toolkit, and by vs-mlrt in VapourSynth with FFmpeg as the encoder."""
