# Reading and checking of inputs, for scripts to source. `fault` collects what is wrong, so that all of it is reported at once; the
# sourcing script has `fail`, and calls `report` when it has looked at everything.

faults=
fault() {
  faults="$faults
  $1"
}

# report WHAT: fail if there is a fault.
report() {
  [ -z "$faults" ] || fail "cannot $1:$faults"
}

# trim TEXT: set $trimmed to it without blanks, and what else is no character to see, at its ends.
trim() {
  trimmed=${1#"${1%%[![:space:]]*}"}
  trimmed=${trimmed%"${trimmed##*[![:space:]]}"}
}

# read_env FILE: set the variables that a file of NAME=VALUE has, unless the environment has them, which it says where the values differ.
# Its values are data: nothing in them is expanded or run, so a secret may hold any character. Faults name lines and quote none.
# $names has the names of the file.
names=
read_env() {
  if [ ! -r "$1" ]; then
    fault "$1 cannot be read"
    return
  fi
  number=0 taken=" " byte_order_mark=$(printf '\357\273\277')
  while IFS= read -r line || [ -n "$line" ]; do
    number=$((number + 1))
    trim "${line#"$byte_order_mark"}"
    case $trimmed in "" | "#"*) continue ;; esac
    line=${trimmed#export }
    trim "${line%%=*}"
    name=$trimmed value=${line#*=}
    case $name in
      "$line" | [!A-Z_]* | *[!A-Z0-9_]* | "")
        fault "$1: line $number is not NAME=VALUE"
        continue
        ;;
    esac
    trim "$value"
    case $trimmed in
      \'* | \"*)
        quote=${trimmed%"${trimmed#?}"}
        rest=${trimmed#?}
        value=${rest%%"$quote"*}
        rest=${rest#"$value"}
        trim "${rest#?}"
        # Behind the other quote a comment at most.
        case ${rest#"$quote"}:$trimmed in : | [[:space:]]*:"#"*) ;; *) quote=wrong ;; esac
        [ -n "$rest" ] || quote=wrong
        ;;
      *)
        trim "${value%%[[:space:]]#*}"
        quote='' value=$trimmed
        ;;
    esac
    # Shells read a backslash in several ways, and a value could come out as another one.
    case $quote:$value in
      wrong:* | [!\']:*\\* | :*\\*)
        fault "$1: line $number has quotes or a backslash to be misread: write NAME='VALUE'"
        continue
        ;;
    esac
    known=
    eval "known=\${$name:-}"
    case $taken in *" $name "*) known= ;; *) names="$names $name" ;; esac
    if [ -n "$known" ]; then
      [ -z "$value" ] || [ "$value" = "$known" ] || printf '%s: from the environment, not from .env\n' "$name" >&2
    else
      eval "$name=\$value"
      taken="$taken$name "
    fi
  done <"$1"
  unset line value rest trimmed known
}

# check_names FILE INPUT...: a fault for each name of the file that read_env has read and that is no input.
check_names() {
  names_file=$1
  shift
  for name in $names; do
    case " $* " in *" $name "*) continue ;; esac
    meant=$(printf '%s\n' "$@" | nearest "$name")
    fault "$names_file: $name is no input${meant:+: did you mean $meant?}"
  done
}

# nearest NAME: print the line of standard input that differs from the name in the fewest letters, three at most.
nearest() {
  awk -v name="$1" '
    function least(a, b, c) { return a < b ? (a < c ? a : c) : (b < c ? b : c) }
    function distance(a, b,  i, j, row, above, corner) {
      for (j = 0; j <= length(b); j++) row[j] = j
      for (i = 1; i <= length(a); i++) {
        corner = row[0]
        row[0] = i
        for (j = 1; j <= length(b); j++) {
          above = row[j]
          row[j] = least(row[j] + 1, row[j - 1] + 1, corner + (substr(a, i, 1) != substr(b, j, 1)))
          corner = above
        }
      }
      return row[length(b)]
    }
    BEGIN { fewest = 4 }
    { differ = distance(name, $0); if (differ < fewest) { fewest = differ; found = $0 } }
    END { print found }
  '
}

# check_cluster: a fault, unless kubectl has a cluster to speak to: that of its current context, or that of the pod it runs in.
check_cluster() {
  [ -n "${KUBERNETES_SERVICE_HOST:-}" ] || kubectl config current-context >/dev/null 2>&1 ||
    fault "no cluster: kubectl has no current context (kubectl config get-contexts)"
}

is_plain() {
  case $1 in "" | *[!A-Za-z0-9@._:/+~-]*) return 1 ;; esac
}

is_guid() {
  is_plain "$1" && printf '%s\n' "$1" | grep -Eqx '[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}'
}

is_domain() {
  is_plain "$1" && printf '%s\n' "$1" | grep -Eqx '[0-9A-Za-z]([0-9A-Za-z-]*[0-9A-Za-z])?([.][0-9A-Za-z-]+)+'
}

# check_secret VALUE: a fault, unless it can be a client secret.
check_secret() {
  if [ -z "$1" ]; then
    fault "CLIENT_SECRET is not set"
  elif is_guid "$1"; then
    fault "CLIENT_SECRET is a GUID: that is the secret's id, not its value"
  else
    case $1 in
      \'*\' | \"*\") fault "CLIENT_SECRET has quotes around it, which would be part of it" ;;
      *[[:space:][:cntrl:]]*) fault "CLIENT_SECRET holds a blank, a line break or the like" ;;
    esac
  fi
}

# check_timeout VALUE: a fault, unless ROLLOUT_TIMEOUT can have it.
check_timeout() {
  if ! is_plain "$1" || ! printf '%s\n' "$1" | grep -Eqx '[0-9]+[smh]'; then
    fault "ROLLOUT_TIMEOUT is not a time such as 180s"
  fi
}

# is_reference TEXT: whether it can be the name of an image, by the grammar of OCI references.
is_reference() {
  label='[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?' part='[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*'
  is_plain "$1" && printf '%s\n' "$1" | grep -Eqx \
    "($label([.]$label)*(:[0-9]{1,5})?/)?$part(/$part)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
}

images=
# use_image NAME VARIABLE: add to $images that the image of that name is the one that the variable names.
use_image() {
  reference=
  eval "reference=\${$2:-}"
  if ! is_reference "$reference"; then
    fault "$2 is not the name of an image: expected one such as registry.example/team/$1:1.2.3 or registry.example/team/$1@sha256:..."
    return
  fi
  case ${reference##*/} in
    *@sha256:*) version="digest: ${reference#*@}" ;;
    *:latest) fault "$2 has the tag latest, which is another image tomorrow" ;;
    *:?*) version="newTag: '${reference##*:}'" ;;
    *) fault "$2 has neither a tag nor a digest" ;;
  esac
  name=${reference%@*}
  case ${name##*/} in *:*) name=${name%:*} ;; esac
  images="$images
  - name: $1
    newName: $name
    ${version:-}"
}

# The two configurations of a pod. Envoy's is rendered from authz's, and says in a comment of which file; what it says in itself
# (authz.rendered) is compared by the program, wherever it is installed. `fail` ends the sourcing script.

# find_program: set $program to authz's, or to nothing.
find_program() {
  program=$1/.venv/bin/authz
  [ -x "$program" ] || program=$(command -v authz) || program=
}

sha256_of() {
  { sha256sum 2>/dev/null || shasum -a 256 2>/dev/null || openssl dgst -sha256 -r; } <"$1" | cut -d ' ' -f 1
}

# render_pair ROOT AUTHZ ENVOY OUTPUT: render OUTPUT from the file AUTHZ, by the program of the checkout in ROOT, with the options of the
# command in the first lines of ENVOY. The paths are relative to ROOT: one of them is written into the result, which others read elsewhere.
render_pair() {
  find_program "$1"
  [ -n "$program" ] || fail "--render needs the program: make setup (in $1), or put authz on PATH"
  (cd "$1" && "$program" envoy --no-values --config "$2" --like "$3" --output "$4") || fail "$2 cannot be rendered"
}

# check_pair ROOT AUTHZ ENVOY HOW: a fault, unless ENVOY was rendered from the file AUTHZ, or does not say from what. HOW is the command
# that renders. Variables of the configuration are those of the environment.
check_pair() {
  grep -q 'authz[.]rendered' "$3" || return 0
  find_program "$1"
  if [ -n "$program" ]; then
    compare_pair "$2" "$3" "$4" check-config --no-values "$2"
  elif ! grep -qx "# authz.yaml: sha256 $(sha256_of "$2")" "$3"; then
    fault "${2##*/} has changed since ${3##*/} was rendered from it, and authz is not installed here to compare them: $4"
  fi
}

# compare_pair AUTHZ ENVOY HOW ARGUMENT...: a fault, unless the program, with these arguments, finds that the two belong together. What it
# warns of is printed.
compare_pair() {
  pair_authz=${1##*/} pair_envoy=$2 pair_how=$3
  shift 3
  differs=$("$program" "$@" --envoy "$pair_envoy" 2>&1 >/dev/null) && {
    [ -z "$differs" ] || printf '%s\n' "$differs" >&2
    return
  }
  case $? in
    1) says="${pair_envoy##*/} does not belong to $pair_authz: $pair_how" ;;
    *) says="$pair_authz has faults:" ;;
  esac
  fault "$says
$(printf '%s\n' "$differs" | sed 's/^/    /')"
}
