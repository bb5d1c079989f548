# Debian's PostgreSQL, with the account, the folder and the variables of the image it stands in for.
ARG BASE
FROM ${BASE}
RUN apt-get update \
 && apt-get install --yes --no-install-recommends postgresql \
 && rm -rf /var/lib/apt/lists/* /var/lib/postgresql/* \
 && install --directory --owner postgres --group postgres --mode 0700 /var/lib/postgresql/data \
 && install --directory --owner postgres --group postgres --mode 3777 /run/postgresql
COPY --chmod=0755 postgres-entrypoint.sh /usr/local/bin/entrypoint
ENV PGDATA=/var/lib/postgresql/data
ENTRYPOINT ["entrypoint"]
EXPOSE 5432
