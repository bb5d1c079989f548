# What packages are installed with: pip, as this machine has been told to use it.
ARG BASE
FROM ${BASE}
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-pip python3-venv \
 && rm -rf /var/lib/apt/lists/* /usr/lib/python3*/EXTERNALLY-MANAGED
COPY pip/pip.conf /etc/pip.conf
COPY pip/wheels /opt/wheels
