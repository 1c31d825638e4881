# The busybox base image, one root file system a platform: kiln builds its own bases.
FROM scratch
ARG TARGETARCH
ADD busybox-${TARGETARCH}.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["sh"]
