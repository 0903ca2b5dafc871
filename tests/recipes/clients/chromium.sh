#!/bin/sh
# Opens the page of the app or API in a headless Chromium, and prints what the page has found.
set -eu

# On the way in a health path is the one that needs no token, which the address bar cannot send.
path=/healthz
[ -z "${http_proxy:-}" ] || path=/page
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# As root it starts without a sandbox of its own; whatever it looks for beyond the servers of the test is not found.
HOME=$folder chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$folder/profile" \
  --no-first-run --disable-background-networking --disable-component-update --disable-sync \
  --host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE 127.0.0.1' ${http_proxy:+--proxy-server="$http_proxy"} \
  --virtual-time-budget=60000 --dump-dom \
  "$BASE$path#token=$TOKEN&name=$NAME&length=$(stat -c %s "$BODY")" \
  2>"$folder/log" >"$folder/page" || { cat "$folder/log" >&2; exit 1; }
sed -n 's|.*<pre id="found">\(.*\)</pre>.*|\1|p' "$folder/page"
