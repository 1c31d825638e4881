# The small Debian base image.
FROM scratch
ARG TARGETARCH
ADD debian-${TARGETARCH}.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["bash"]
