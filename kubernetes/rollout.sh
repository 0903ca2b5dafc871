# Waiting for pods, for scripts to source.

# rolled_out NAMESPACE DEPLOYMENT TIMEOUT KUBECTL...: wait until the pods of a Deployment are ready; KUBECTL is the command for the
# cluster. If they do not get ready, show what the cluster and the pods say, and fail.
rolled_out() {
  namespace=$1 deployment=$2 timeout=$3
  shift 3
  "$@" rollout status "deployment/$deployment" --namespace "$namespace" --timeout="$timeout" && return
  printf '%s: the pods of %s are not ready. What the cluster says of them, and what they say:\n' "${0##*/}" "$deployment" >&2
  shown "$@" get pods --namespace "$namespace"
  # A pod whose image cannot be pulled has no log.
  shown "$@" get events --namespace "$namespace" --field-selector=type!=Normal
  shown "$@" logs "deployment/$deployment" --namespace "$namespace" --all-containers --prefix --tail=20
  return 1
}

# shown COMMAND...: show a command and what it says. Its rights may not suffice, which it says itself.
shown() {
  printf '\n$ %s\n' "$*" >&2
  "$@" >&2 || true
}
