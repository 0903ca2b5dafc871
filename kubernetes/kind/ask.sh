#!/bin/sh
# Calls the agent of the laptop's cluster as a user, and shows what the API saw. Each command is printed first.
set -eu

usage() {
  cat <<'USAGE'
usage: ask.sh [USER [PATH]]

  USER   in the emulator's directory: alice, alice2, alice3, carol (needs MFA), bob (has not consented) [default: alice]
  PATH   of the agent: /my-orders, /my-profile, /jobs/nightly, /jobs/desk, /whoami [default: /my-orders]
USAGE
}

case ${1:-} in -h | --help) usage && exit 0 ;; esac
here=$(cd "$(dirname "$0")" && pwd -P)
user=${1:-alice}
path=${2:-/my-orders}
case $user$path in
  *[!A-Za-z0-9/_-]*) usage >&2 && printf 'ask.sh: a user or a path that the demo does not have\n' >&2 && exit 2 ;;
esac
command -v curl >/dev/null || { printf 'ask.sh: curl is not installed\n' >&2 && exit 2; }
ca=$here/.up/ca.crt
[ -f "$ca" ] || { printf 'ask.sh: run up.sh first\n' >&2 && exit 2; }

mint=https://login.entra-emulator.svc.cluster.local/emulator/mint
calls=https://orders.apis.svc.cluster.local/calls
agent=http://127.0.0.1:8080$path

cat <<COMMANDS
# $user signs in, at the emulator:
token=\$(curl --silent --show-error --fail --cacert '$ca' --connect-to ::127.0.0.1:8443 --data '{"user": "$user@contoso.example"}' $mint | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
# $user asks the agent, with the token on no command line:
printf 'Authorization: Bearer %s\n' "\$token" | curl --silent --show-error --include --header @- $agent
COMMANDS
token=$(curl --silent --show-error --fail --cacert "$ca" --connect-to ::127.0.0.1:8443 \
  --data "{\"user\": \"$user@contoso.example\"}" "$mint" | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
[ -n "$token" ] || { printf 'ask.sh: the emulator gave no token\n' >&2 && exit 1; }
printf 'Authorization: Bearer %s\n' "$token" | curl --silent --show-error --include --header @- "$agent"
cat <<COMMANDS

# What the API saw so far, the last at the end:
curl --silent --show-error --fail --cacert '$ca' --connect-to ::127.0.0.1:8444 $calls
COMMANDS
curl --silent --show-error --fail --cacert "$ca" --connect-to ::127.0.0.1:8444 "$calls"
echo
