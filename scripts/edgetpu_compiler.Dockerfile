# Coral's edgetpu_compiler in a container image, for machines that cannot run it: anything but x86-64
# Debian or Ubuntu. Build it once, in a clone of facetpu; facetpu compile then finds it by itself:
#   docker build --platform linux/amd64 -t edgetpu-compiler -f scripts/edgetpu_compiler.Dockerfile scripts
# podman builds it by the same words.
FROM --platform=linux/amd64 debian:bookworm-slim
COPY install_edgetpu_compiler.sh /
RUN sh /install_edgetpu_compiler.sh && rm -rf /var/lib/apt/lists/* /install_edgetpu_compiler.sh
ENTRYPOINT ["edgetpu_compiler"]
