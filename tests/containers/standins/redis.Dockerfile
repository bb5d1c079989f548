# Debian's Redis, with the account and the folder of the image it stands in for.
ARG BASE
FROM ${BASE}
RUN apt-get update \
 && apt-get install --yes --no-install-recommends redis-server \
 && rm -rf /var/lib/apt/lists/* \
 && install --directory --owner redis --group redis /data
WORKDIR /data
EXPOSE 6379
CMD ["redis-server"]
