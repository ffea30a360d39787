# shellcheck shell=bash
# What the components read: certificates, tokens, kubeconfigs and settings. Sourced by scripts/cluster.
# shellcheck disable=SC2154  # $state and the like are the caller's

# leaf NAME SUBJECT EXTENSION...: a certificate of the cluster's own authority.
leaf() {
    local name=$1 subject=$2 extension extensions=()
    shift 2
    for extension in basicConstraints=CA:FALSE "$@"; do extensions+=(-addext "$extension"); done
    openssl req -x509 -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
        -CA ca.crt -CAkey ca.key -subj "$subject" "${extensions[@]}" -keyout "$name.key" -out "$name.crt" 2>/dev/null
}

write_certificates() (
    umask 077
    cd "$state/pki" || exit 1
    printf '[req]\ndistinguished_name=name\n[name]\n' >openssl.cnf
    openssl req -x509 -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
        -subj /CN=launch-async-tests -addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign,cRLSign \
        -keyout ca.key -out ca.crt 2>/dev/null &&
        leaf apiserver /CN=kube-apiserver extendedKeyUsage=serverAuth \
            "subjectAltName=IP:127.0.0.1,IP:$host,IP:$services.0.1,DNS:localhost,DNS:kubernetes.default.svc" &&
        leaf kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client extendedKeyUsage=clientAuth &&
        leaf kubelet "/CN=system:node:$node" extendedKeyUsage=serverAuth "subjectAltName=IP:$host,DNS:$node" &&
        openssl ecparam -name prime256v1 -genkey -noout -out sa.key &&
        chmod 644 ca.crt
)

# write_login NAME USER [GROUP]: a token that the API server takes, and a kubeconfig with it.
write_login() (
    umask 077
    token=$(openssl rand -hex 16)
    printf '%s,%s,%s%s\n' "$token" "$2" "$1" "${3:+,$3}" >>"$state/tokens.csv"
    cat >"$state/$1.kubeconfig" <<CONFIG
apiVersion: v1
kind: Config
clusters: [{name: launch-async, cluster: {server: "$server", certificate-authority-data: $(base64 -w0 "$state/pki/ca.crt")}}]
users: [{name: $1, user: {token: $token}}]
contexts: [{name: launch-async, context: {cluster: launch-async, user: $1}}]
current-context: launch-async
CONFIG
)

write_logins() {
    rm -f "$state/tokens.csv"
    write_login admin admin system:masters &&
        write_login kcm system:kube-controller-manager &&
        write_login scheduler system:kube-scheduler &&
        write_login proxy system:kube-proxy &&
        write_login node "system:node:$node" system:nodes &&
        if [ -n "${SUDO_UID:-}" ]; then chown "$SUDO_UID" "$state/admin.kubeconfig"; fi
}

# Everything below our own folder. Where the machine gives no right to lower an out-of-memory score,
# no pod would start without restrict_oom_score_adj.
write_containerd() {
    cat >"$state/containerd.toml" <<CONFIG
version = 2
root = "$state/containerd/root"
state = "$state/containerd/state"
[grpc]
  address = "$state/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$state/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$pause_image"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$cni_programs"
    conf_dir = "$state/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "$state/containerd/runc"
CONFIG
    cat >"$state/cni/10-$network.conflist" <<CONFIG
{"cniVersion": "0.4.0", "name": "$network", "plugins": [{"type": "bridge", "bridge": "$bridge", "isGateway": true,
 "ipam": {"type": "host-local", "dataDir": "$state/addresses", "routes": [{"dst": "0.0.0.0/0"}],
          "ranges": [[{"subnet": "$pods", "gateway": "$host"}]]}}]}
CONFIG
}

# Neither kernel settings nor firewall rules of the machine are touched that are not needed.
write_kubelet() {
    cat >"$state/kubelet.yaml" <<CONFIG
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $host
readOnlyPort: 0
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $state/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $state/pki/kubelet.crt
tlsPrivateKeyFile: $state/pki/kubelet.key
containerRuntimeEndpoint: unix://$state/containerd.sock
podLogsDir: $state/pod-logs
volumePluginDir: $state/kubelet/volume-plugins
resolvConf: /etc/resolv.conf
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
cgroupsPerQOS: false
enforceNodeAllocatable: []
makeIPTablesUtilChains: false
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
imageGCHighThresholdPercent: 100
serializeImagePulls: false
maxPods: 250
kubeAPIQPS: 200
kubeAPIBurst: 400
syncFrequency: 10s
CONFIG
    cat >"$state/proxy.yaml" <<CONFIG
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $state/proxy.kubeconfig}
hostnameOverride: $node
bindAddress: 127.0.0.1
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
clusterCIDR: $pods
mode: iptables
iptables: {localhostNodePorts: false, masqueradeAll: true}
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
CONFIG
}

write_kwok() {
    # As a container runtime writes it: kwok reads nothing else.
    printf '%s stdout F This line is all that a pod without containers says.\n' \
        "$(date -u +%Y-%m-%dT%H:%M:%S.%NZ)" >"$state/kwok-pod.log"
    cat >"$state/kwok-logs.yaml" <<CONFIG
apiVersion: kwok.x-k8s.io/v1alpha1
kind: ClusterLogs
metadata: {name: all}
spec: {logs: [{logsFile: $state/kwok-pod.log}]}
CONFIG
}

# The nodes without containers: none of the others' pods comes to them.
fake_nodes() {
    local number room='{cpu: 64, memory: 512Gi, ephemeral-storage: 1Ti, pods: 1000}'
    for number in $(seq "$1"); do
        cat <<NODE
---
apiVersion: v1
kind: Node
metadata:
  name: fake-$number
  annotations: {kwok.x-k8s.io/node: fake}
  labels: {type: kwok, kubernetes.io/hostname: fake-$number, kubernetes.io/os: linux, kubernetes.io/arch: amd64}
spec: {taints: [{key: kwok, value: "true", effect: NoSchedule}]}
status: {allocatable: $room, capacity: $room}
NODE
    done
}
