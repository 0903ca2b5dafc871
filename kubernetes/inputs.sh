# Checks of inputs, for scripts to source. `fault` collects what is wrong, so that all of it is reported at once; the
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

is_plain() {
  case $1 in "" | *[!A-Za-z0-9@._:/+~-]*) return 1 ;; esac
}

is_guid() {
  is_plain "$1" && printf '%s\n' "$1" | grep -Eqx '[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}'
}

# check_secret VALUE: a fault, unless it can be a client secret.
check_secret() {
  if [ -z "$1" ]; then
    fault "CLIENT_SECRET is not set"
  elif is_guid "$1"; then
    fault "CLIENT_SECRET is a GUID: that is the secret's id, not its value"
  fi
}

# check_timeout VALUE: a fault, unless ROLLOUT_TIMEOUT can have it.
check_timeout() {
  if ! is_plain "$1" || ! printf '%s\n' "$1" | grep -Eqx '[0-9]+[smh]'; then
    fault "ROLLOUT_TIMEOUT is not a time such as 180s"
  fi
}

images=
# use_image NAME VARIABLE: add to $images that the image of that name is the one that the variable names.
use_image() {
  reference=
  eval "reference=\${$2:-}"
  case ${reference##*/} in
    *@sha256:*) version="digest: ${reference#*@}" ;;
    *:latest) fault "$2 has the tag latest, which is another image tomorrow" ;;
    *:?*) version="newTag: '${reference##*:}'" ;;
    *) fault "$2 has neither a tag nor a digest" ;;
  esac
  is_plain "$reference" || fault "$2 is not the name of an image"
  name=${reference%@*}
  case ${name##*/} in *:*) name=${name%:*} ;; esac
  images="$images
  - name: $1
    newName: $name
    ${version:-}"
}
