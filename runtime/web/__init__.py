"""`python -m runtime.web`: a page that sharpens what is uploaded.

`page` is what Streamlit runs for each visitor; `uploads` looks at headers before anything is
decoded; `desk` lets one after the other to `worker`, a process that decodes and sharpens and can
be killed.
"""
