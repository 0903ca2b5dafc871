#!/bin/sh
# Sends a pod's outbound TCP to the Envoy beside the agent, which then needs no proxy variable.
# For an init container with the capability NET_ADMIN: nothing else in the pod can change the rules.
# docs/interception.md says what is caught and what is not.
set -euf

usage() {
  cat <<'USAGE'
usage: intercept.sh [--form nft|iptables] [--dry-run | --remove]

  --form      nft, or iptables where nft is missing; without it, what is installed, nft first
  --dry-run   print the rules and stop; needs no right
  --remove    take the rules away, of both forms, and nothing else

Environment; lists are separated by commas:
  EXCLUDE_UIDS      users whose connections go straight out: Envoy's and authz's. Required.
  ENVOY_PORT        port of Envoy's egress listener on 127.0.0.1 and ::1 (15001)
  EXCLUDE_CIDRS     addresses and networks, of either family, that are reached directly (none)
  EXCLUDE_PORTS     TCP ports that are reached directly (53)
  REJECT_UDP_PORTS  UDP ports that are refused, so that HTTP/3 falls back to TCP (443)
  INTERCEPT_FORM    like --form
USAGE
}

fail() {
  printf 'intercept.sh: %s\n' "$1" >&2
  exit 2
}

TABLE=authz_interception
OUTBOUND=AUTHZ_OUTBOUND
FENCE=AUTHZ_FENCE

action=apply
form=${INTERCEPT_FORM:-auto}
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) action=print ;;
    --remove) action=remove ;;
    --form) [ $# -ge 2 ] || fail "--form: nft or iptables is missing" && form=$2 && shift ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && fail "unknown argument: $1" ;;
  esac
  shift
done

# ---- Inputs. All faults are reported, before anything changes. ----

faults=
fault() {
  faults="$faults
  $1"
}

# is_number TEXT LEAST MOST: decimal, without leading zeros (which some programs read as octal).
is_number() {
  case $1 in "" | *[!0-9]* | 0?* | ???????????*) return 1 ;; esac
  [ "$1" -ge "$2" ] && [ "$1" -le "$3" ]
}

# is_prefix TEXT MOST: nothing, or a slash and a length. Length 0 would exclude everything.
is_prefix() {
  case $1 in "") ;; *) is_number "${1#/}" 1 "$2" ;; esac
}

is_ipv4() {
  address=${1%%/*}
  is_prefix "${1#"$address"}" 32 || return 1
  case $address in *.) return 1 ;; esac
  IFS=.
  # shellcheck disable=SC2086 # The parts between the dots are wanted.
  set -- $address
  unset IFS
  [ $# -eq 4 ] || return 1
  for part; do is_number "$part" 0 255 || return 1; done
}

is_ipv6() {
  address=${1%%/*}
  is_prefix "${1#"$address"}" 128 || return 1
  case $address in *[!0-9A-Fa-f:]* | *:::* | *::*::* | :[!:]* | *[!:]:) return 1 ;; esac
  IFS=:
  # shellcheck disable=SC2086 # The parts between the colons are wanted.
  set -- $address
  unset IFS
  parts=0
  for part; do
    case $part in "") ;; ?????*) return 1 ;; *) parts=$((parts + 1)) ;; esac
  done
  case $address in *::*) [ "$parts" -le 7 ] ;; *) [ "$parts" -eq 8 ] ;; esac
}

# check NAME LIST TEST WHAT...: a fault for each entry that fails the test. Blanks are no separators.
check() {
  name=$1 list=$2 test=$3 what=$4
  case $list in ,* | *, | *,,*) fault "$name has an empty entry: '$list'" && return ;; esac
  IFS=,
  for item in $list; do
    unset IFS
    "$test" "$item" || fault "$name: '$item' is not $what"
  done
  unset IFS
}

is_port() {
  is_number "$1" 1 65535
}

is_user() {
  is_number "$1" 1 4294967294
}

is_network() {
  is_ipv4 "$1" || is_ipv6 "$1"
}

port=${ENVOY_PORT:-15001}
users=${EXCLUDE_UIDS:-}
networks=${EXCLUDE_CIDRS:-}
# Set and empty is a choice here: no port.
ports=${EXCLUDE_PORTS-53}
udp_ports=${REJECT_UDP_PORTS-443}

case $form in
  auto | nft | iptables) ;;
  *) fault "the form (--form, INTERCEPT_FORM) is '$form', and not nft or iptables" ;;
esac
if [ "$action" != remove ]; then
  is_port "$port" || fault "ENVOY_PORT: '$port' is not a port"
  [ -n "$users" ] || fault "EXCLUDE_UIDS is not set: name the users of Envoy and authz, by number"
  check EXCLUDE_UIDS "$users" is_user "the number of a user other than root"
  check EXCLUDE_CIDRS "$networks" is_network "an address, or a network with a length above 0"
  check EXCLUDE_PORTS "$ports" is_port "a port"
  check REJECT_UDP_PORTS "$udp_ports" is_port "a port"
fi
[ -z "$faults" ] || fail "nothing is changed:$faults"

has() {
  command -v "$1" >/dev/null 2>&1
}

if [ "$form" = auto ]; then
  if has nft; then
    form=nft
  else
    form=iptables
  fi
fi

# A kernel without IPv6 has nothing to send by it, and ip6tables fails there.
families=iptables
[ ! -e /proc/net/if_inet6 ] || families="iptables ip6tables"

# ---- Rules. First `outbound`: the address of a new connection becomes loopback, where Envoy listens. ----
# Then `fence`: what the first has not turned is refused. Such are packets that the kernel cannot assign to a
# connection; they would leave as the agent wrote them, with the caller's token in plain text.
#
# Both let pass: the users of Envoy and authz; what stays in the pod; excluded networks and ports. A packet
# whose user is unknown counts as the agent's, but for those of connections that were let out before: the
# last ones of a socket that Envoy has closed have no user any more. Answers to callers belong to theirs.

each() {
  IFS=,
  for item in $1; do
    unset IFS
    # shellcheck disable=SC2059 # The format is the rule.
    printf -- "$2\n" "$item"
  done
  unset IFS
}

nft_networks() {
  IFS=,
  for item in $networks; do
    unset IFS
    case $item in *:*) family=ip6 ;; *) family=ip ;; esac
    printf '    %s daddr %s return\n' "$family" "$item"
  done
  unset IFS
}

# One transaction: the table is made if it is not there, deleted, and made anew.
nft_rules() {
  cat <<RULES
table inet $TABLE
delete table inet $TABLE
table inet $TABLE {
  chain outbound {
    type nat hook output priority -100; policy accept;
$(each "$users" '    meta skuid %s return')
    fib daddr type local return
$(nft_networks)
$(each "$ports" '    tcp dport %s return')
    meta l4proto tcp redirect to :$port
  }
  chain fence {
    type filter hook output priority 0; policy accept;
$(each "$users" '    meta skuid %s return')
    fib daddr type local return
    ct state established,related return
$(nft_networks)
$(each "$ports" '    tcp dport %s return')
    meta l4proto tcp ct state invalid drop
    meta l4proto tcp reject with tcp reset
$(each "$udp_ports" '    udp dport %s reject')
  }
}
RULES
}

# iptables_networks FAMILY CHAIN
iptables_networks() {
  IFS=,
  for item in $networks; do
    unset IFS
    case $1$item in
      iptables*:* | ip6tables*.*) ;;
      *) printf '%s\n' "-A $2 -d $item -j RETURN" ;;
    esac
  done
  unset IFS
}

# hook FAMILY TABLE CHAIN: the rule that leads to our chain, as the first one, and once.
hook() {
  if [ "$action" = apply ] && "$1" -w -t "$2" -C OUTPUT -j "$3" 2>/dev/null; then
    printf '%s\n' "-D OUTPUT -j $3"
  fi
  printf '%s\n' "-I OUTPUT 1 -j $3"
}

# iptables_rules FAMILY: naming a chain empties it, and each table is replaced in one step.
iptables_rules() {
  unreachable=icmp-port-unreachable
  [ "$1" = iptables ] || unreachable=icmp6-port-unreachable
  cat <<RULES
*nat
:$OUTBOUND - [0:0]
$(each "$users" "-A $OUTBOUND -m owner --uid-owner %s -j RETURN")
-A $OUTBOUND -m addrtype --dst-type LOCAL -j RETURN
$(iptables_networks "$1" "$OUTBOUND")
$(each "$ports" "-A $OUTBOUND -p tcp --dport %s -j RETURN")
-A $OUTBOUND -p tcp -j REDIRECT --to-ports $port
$(hook "$1" nat "$OUTBOUND")
COMMIT
*filter
:$FENCE - [0:0]
$(each "$users" "-A $FENCE -m owner --uid-owner %s -j RETURN")
-A $FENCE -m addrtype --dst-type LOCAL -j RETURN
-A $FENCE -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN
$(iptables_networks "$1" "$FENCE")
$(each "$ports" "-A $FENCE -p tcp --dport %s -j RETURN")
-A $FENCE -p tcp -m conntrack --ctstate INVALID -j DROP
-A $FENCE -p tcp -j REJECT --reject-with tcp-reset
$(each "$udp_ports" "-A $FENCE -p udp --dport %s -j REJECT --reject-with $unreachable")
$(hook "$1" filter "$FENCE")
COMMIT
RULES
}

# Lists that are empty leave empty lines.
dense() {
  sed '/^$/d'
}

apply_nft() {
  nft_rules | dense | nft --check --file - || fail "nft refuses the rules; nothing is changed"
  nft_rules | dense | nft --file - || fail "nft failed"
}

apply_iptables() {
  for family in $families; do
    iptables_rules "$family" | dense | "$family-restore" -w --noflush --test ||
      fail "$family refuses the rules; nothing is changed"
  done
  for family in $families; do
    iptables_rules "$family" | dense | "$family-restore" -w --noflush || fail "$family failed"
  done
}

remove_nft() {
  ! has nft || ! nft list table inet "$TABLE" >/dev/null 2>&1 || nft delete table inet "$TABLE"
}

# remove_chain FAMILY TABLE CHAIN
remove_chain() {
  while "$1" -w -t "$2" -C OUTPUT -j "$3" 2>/dev/null; do
    "$1" -w -t "$2" -D OUTPUT -j "$3"
  done
  if "$1" -w -t "$2" -n -L "$3" >/dev/null 2>&1; then
    "$1" -w -t "$2" -F "$3"
    "$1" -w -t "$2" -X "$3"
  fi
}

remove_iptables() {
  for family in $families; do
    if has "$family"; then
      remove_chain "$family" nat "$OUTBOUND"
      remove_chain "$family" filter "$FENCE"
    fi
  done
}

case $action-$form in
  print-nft) nft_rules | dense ;;
  print-iptables)
    for family in $families; do
      printf '# %s-restore --noflush\n' "$family"
      iptables_rules "$family" | dense
    done
    ;;
  remove-*)
    remove_nft
    remove_iptables
    ;;
  apply-nft)
    has nft || fail "nft is not installed"
    apply_nft
    ;;
  apply-iptables)
    for family in $families; do
      has "$family-restore" || fail "neither nft nor $family is installed"
    done
    apply_iptables
    ;;
esac
if [ "$action" = apply ]; then
  printf 'intercept.sh: %s: outbound TCP goes to port %s, but not that of users %s\n' "$form" "$port" "$users"
fi
