#!/bin/sh
# Opens the page of the app or API in a headless Chromium, and prints what the page writes to its console.
set -eu

# On the way in a health path is the one that needs no token, which the address bar cannot send.
path=/healthz
[ -z "${http_proxy:-}" ] || path=/page
folder=$(mktemp -d)
browser=
leave() {
  [ -z "$browser" ] || { kill "$browser" 2>/dev/null || true; wait "$browser" 2>/dev/null || true; }
  # Its children write into the profile for a moment longer.
  tries=0
  until rm -rf "$folder" 2>/dev/null || [ "$tries" -ge 2000 ]; do tries=$((tries + 1)); done
}
trap leave EXIT
mkfifo "$folder/console"
# As root it starts without a sandbox of its own; whatever it looks for beyond the servers of the test is not found.
HOME=$folder chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$folder/profile" \
  --no-first-run --disable-background-networking --disable-component-update --disable-sync \
  --host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE 127.0.0.1' ${http_proxy:+--proxy-server="$http_proxy"} \
  --remote-debugging-port=0 --enable-logging=stderr \
  "$BASE$path#token=$TOKEN&name=$NAME&length=$(stat -c %s "$BODY")" >"$folder/console" 2>&1 &
browser=$!
timeout 100 sed /found:/q <"$folder/console" >"$folder/log" || true
found=$(grep -o 'found:[A-Za-z0-9+/=]*' "$folder/log") || { cat "$folder/log" >&2; exit 1; }
printf %s "${found#found:}" | base64 -d
