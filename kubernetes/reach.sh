# Whether the pod's NetworkPolicy lets it reach the destinations of Envoy's configuration, for scripts to source. It goes by ports and by
# whether an address is of a private range, as far as that can be told without asking a name server.

# unreached ENVOY MANIFESTS: print each destination, as `host port N`, that no egress rule of the manifests allows; nothing where they have no
# NetworkPolicy. ENVOY is what `authz envoy` renders, MANIFESTS what `kubectl kustomize` prints.
unreached() {
  awk '
    function is_private(host) {
      return host !~ /[.:]/ || host ~ /[.](svc|local|internal|localdomain)$/ ||
        host ~ /^(10|127)[.][0-9.]+$/ || host ~ /^(192[.]168|169[.]254)[.][0-9.]+$/ ||
        host ~ /^172[.](1[6-9]|2[0-9]|3[01])[.][0-9.]+$/ ||
        host ~ /^100[.](6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])[.][0-9.]+$/ ||
        host ~ /^[fF][cCdD][0-9a-fA-F]*:/ || host ~ /^[fF][eE][89abAB][0-9a-fA-F]*:/
    }
    function destination(host, port) {
      if (!((host, port) in seen)) {
        seen[host, port] = 1
        hosts[++count] = host
        ports[count] = port
      }
    }
    # One rule of the policy is read to its end: then it counts, for public addresses or for private ones.
    function end_rule(  port) {
      if (in_rule && !has_ports) every[is_public ? "public" : "private"] = 1
      if (in_rule) for (port in of_rule) allowed[is_public ? "public" : "private", port] = 1
      split("", of_rule)
      in_rule = has_ports = is_public = 0
    }
    function number(text) {
      sub(/^[^:]*:[ ]*/, "", text)
      gsub(/[^0-9]/, "", text)
      return text + 0
    }
    FNR == 1 { file++ }

    file == 1 && /^  clusters:/ { in_clusters = 1 }
    file == 1 && in_clusters && /^  - name: / { is_egress = $3 ~ /^.?egress\//; host = "" }
    file == 1 && in_clusters && is_egress && /^ +address: ./ { host = $2; gsub(/[\047"]/, "", host) }
    file == 1 && in_clusters && is_egress && /^ +port_value: / && host != "" { destination(host, $2 + 0) }
    # A wildcard has no cluster with its name, and the port of its scheme.
    file == 1 && /^ +- .?[*][.].*:(80|443)/ {
      host = $2
      gsub(/[\047"]/, "", host)
      if (host ~ /:443$/) { sub(/:443$/, "", host); wild[host] = 443 }
      else if (host ~ /:80$/) { sub(/:80$/, "", host); if (!(host in wild)) wild[host] = 80 }
    }

    file == 2 && /^---/ { end_rule(); is_policy = in_egress = 0 }
    file == 2 && /^kind: NetworkPolicy/ { is_policy = has_policy = 1 }
    file == 2 && /^  [a-zA-Z]/ { end_rule(); in_egress = is_policy && /^  egress:/ }
    file == 2 && in_egress && /^  - / { end_rule(); in_rule = 1 }
    file == 2 && in_rule && /^  [- ] ports:/ { has_ports = 1 }
    file == 2 && in_rule && /cidr: .?(0[.]0[.]0[.]0|::)\/0/ { is_public = 1 }
    file == 2 && in_rule && /^ +(- )?endPort: / { last = number($0); for (one = first; one && one <= last; one++) of_rule[one] = 1; last = first = 0; next }
    file == 2 && in_rule && /^ +(- )?port: / { first = number($0); of_rule[first] = 1 }
    END {
      end_rule()
      if (!has_policy) exit
      for (host in wild) destination(host, wild[host])
      for (one = 1; one <= count; one++) {
        host = hosts[one]
        port = ports[one]
        if (every["private"] || allowed["private", port]) continue
        if (!is_private(host) && (every["public"] || allowed["public", port])) continue
        print host " port " port
      }
    }
  ' "$1" "$2"
}
