#!/bin/sh
# Writes .env from .env.example with a secret of its own for every line that has none. Never over a .env that is there.
set -eu
cd "$(dirname "$0")/.."
target=${1:-.env}

letters() { # so many random ones of 0-9A-Za-z
  LC_ALL=C tr -dc '0-9A-Za-z' </dev/urandom | head -c "$1"
}

key() { # as `dream keys generate` makes them: 37 random letters and their CRC-32, which gzip computes, in base 62
  random=$(letters 37)
  crc=$(printf %s "$random" | gzip -c | tail -c 8 | head -c 4 | od -An -tu1 |
    awk '{printf "%.0f", $1 + 256 * ($2 + 256 * ($3 + 256 * $4))}')
  printf 'drk_%s%s' "$random" "$(awk -v number="$crc" 'BEGIN {
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    for (place = 0; place < 6; place++) {
      text = substr(alphabet, number % 62 + 1, 1) text
      number = int(number / 62)
    }
    print text
  }')"
}

umask 077
set -C # the shell itself refuses to write over a file
while IFS= read -r line; do
  case $line in
    DREAM_ADMIN_KEY=) printf '%s%s\n' "$line" "$(key)" ;;
    DREAM_SECRET= | S3_SECRET_ACCESS_KEY= | *_PASSWORD=) printf '%s%s\n' "$line" "$(letters 40)" ;;
    *) printf '%s\n' "$line" ;;
  esac
done <.env.example >"$target"
echo "$target is written; the administrator's key in it is DREAM_ADMIN_KEY" >&2
