"""`python -m runtime.web`: the upload page, which restores uploaded images and clips.

Streamlit runs `page` for each visitor. `uploads` checks the headers of an upload before anything is decoded.
`job_queue` gives one upload after another to `worker`, a separate process that decodes and restores them, and that can
be killed.
"""
