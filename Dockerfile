# The runtime on a CPU. `docker/check_in_chroot.sh` runs these steps without Docker.
# Build: docker build -t deblur .
# Run: docker run --rm --user "$(id -u):$(id -g)" -v "$PWD":/data deblur --source clip.mp4 --out sharp.mp4
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN python3 -m venv /opt/deblur
RUN /opt/deblur/bin/pip install --no-cache-dir --constraint /src/constraints.txt /src
# Every user may write to /data: with --user the container runs as the owner of the mounted folder.
RUN useradd --create-home deblur && install --directory --mode 1777 /data
USER deblur
WORKDIR /data
ENTRYPOINT ["/opt/deblur/bin/deblur"]
