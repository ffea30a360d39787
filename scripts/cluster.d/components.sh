# shellcheck shell=bash
# The programs that make up the cluster: how each is started, asked after and ended. Sourced by scripts/cluster.
# shellcheck disable=SC2154  # $state and the like are the caller's

components=(etcd apiserver kcm scheduler containerd kubelet proxy)
stop_seconds=30

# Prints the pid of a component, if it runs. A pid alone may have been reused.
own_pid() {
    local pid
    pid=$(cat "$state/pid/$1" 2>/dev/null) || return 1
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q -- "$state/" || return 1
    printf '%s\n' "$pid"
}

# run COMPONENT COMMAND...: a stream or a lock left open would make a caller wait for as long as it lives.
run() {
    local name=$1
    shift
    setsid "$@" >>"$state/log/$name.log" 2>&1 </dev/null 8>&- 9>&- &
    printf '%s\n' $! >"$state/pid/$name"
    disown
}

run_etcd() {
    run etcd "$kube_folder/kube" etcd --data-dir "$state/etcd" --unsafe-no-fsync --log-level warn \
        --listen-client-urls "$etcd_url" --advertise-client-urls "$etcd_url" --listen-peer-urls http://127.0.0.1:12380
}

# Without a time for its watches it waits a minute for their clients to hang up.
run_apiserver() {
    local pki=$state/pki
    run apiserver "$kube_folder/kube" kube-apiserver --etcd-servers="$etcd_url" --bind-address="$host" --advertise-address="$host" \
        --secure-port="$port" --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
        --kubelet-client-certificate="$pki/kubelet-client.crt" --kubelet-client-key="$pki/kubelet-client.key" \
        --kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP \
        --service-cluster-ip-range="$services.0.0/16" --service-account-issuer="$server" \
        --service-account-signing-key-file="$pki/sa.key" --service-account-key-file="$pki/sa.key" \
        --token-auth-file="$state/tokens.csv" --authorization-mode=Node,RBAC --allow-privileged=true \
        --shutdown-watch-termination-grace-period=2s
}

# The usual limits of client calls are for clusters that many share.
run_kcm() {
    run kcm "$kube_folder/kube" kube-controller-manager --kubeconfig="$state/kcm.kubeconfig" --leader-elect=false --secure-port=0 \
        --service-account-private-key-file="$state/pki/sa.key" --root-ca-file="$state/pki/ca.crt" \
        --use-service-account-credentials=true --kube-api-qps=500 --kube-api-burst=1000 --concurrent-job-syncs=20 \
        --flex-volume-plugin-dir="$state/kubelet/volume-plugins"
}

run_scheduler() {
    run scheduler "$kube_folder/kube" kube-scheduler --kubeconfig="$state/scheduler.kubeconfig" --leader-elect=false --secure-port=0 \
        --kube-api-qps=500 --kube-api-burst=1000
}

run_containerd() { run containerd containerd -c "$state/containerd.toml"; }

run_kubelet() {
    run kubelet "$kube_folder/kube" kubelet --config="$state/kubelet.yaml" --kubeconfig="$state/node.kubeconfig" \
        --hostname-override="$node" --node-ip="$host" --root-dir="$state/kubelet" --cert-dir="$state/kubelet/pki"
}

run_proxy() { run proxy "$kube_folder/kube" kube-proxy --config="$state/proxy.yaml"; }

run_kwok() {
    run kwok "$kwok_folder/kwok" --kubeconfig="$state/admin.kubeconfig" \
        --manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake --cidr="$fake_pods" \
        --node-ip="$host" --node-port="$kwok_port" --server-address="$host:$kwok_port" --node-lease-duration-seconds=40 \
        --tls-cert-file="$state/pki/kubelet.crt" --tls-private-key-file="$state/pki/kubelet.key" \
        --config="$here/kwok.yaml" --config="$state/kwok-logs.yaml"
}

ctr_cluster() { ctr -a "$state/containerd.sock" -n k8s.io "$@"; }

kubectl_cluster() { KUBECACHEDIR=$state/kubectl "$kube_folder/kubectl" --kubeconfig "$state/admin.kubeconfig" --request-timeout=5s "$@"; }

ask() { curl -fsS -o /dev/null --noproxy '*' --max-time 3 "$@" 2>/dev/null; }

is_well() {
    case "$1" in
        etcd) ask "$etcd_url/health" ;;
        apiserver) ask --cacert "$state/pki/ca.crt" "$server/readyz" ;;
        containerd) timeout 5 ctr -a "$state/containerd.sock" version >/dev/null 2>&1 ;;
        kubelet) ask http://127.0.0.1:10248/healthz ;;
        kwok) ask -k "https://$host:$kwok_port/healthz" ;;
        *) own_pid "$1" >/dev/null ;;
    esac
}

# start_component NAME: does nothing if it is there, and returns when it answers.
start_component() {
    local name=$1 tries=240 started
    if ! own_pid "$name" >/dev/null; then
        "run_$name"
    fi
    started=$(cat "$state/pid/$name")
    until is_well "$name"; do
        tries=$((tries - 1))
        if [ "$tries" -eq 0 ] || ! kill -0 "$started" 2>/dev/null; then
            say "$name did not come up; the end of $state/log/$name.log:"
            tail -n 5 "$state/log/$name.log" >&2
            return 1
        fi
        sleep 0.25
    done
}

# is_over PID: a process that is killed loses its command line first and its ports last, with its last thread.
is_over() {
    local threads=("/proc/$1/task/"*)
    [ ! -e "/proc/$1" ] || { [ "${#threads[@]}" -le 1 ] && grep -qs '^State:.Z' "/proc/$1/status"; }
}

# stop_component NAME [SIGNAL]: returns when it is gone, as its port is free only then.
stop_component() {
    local name=$1 pid tries=$((stop_seconds * 10))
    pid=$(own_pid "$name") || return 0
    kill -s "${2:-TERM}" "$pid"
    until is_over "$pid"; do
        if [ "$tries" -eq 0 ] && own_pid "$name" >/dev/null; then
            say "$name (pid $pid) did not stop within $stop_seconds seconds; it is killed"
            kill -s KILL "$pid"
        fi
        [ "$tries" -gt -50 ] || return 1
        sleep 0.1
        tries=$((tries - 1))
    done
}

node_is_ready() {
    [ "$(kubectl_cluster get node "$node" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null)" = True ] &&
        kubectl_cluster get serviceaccount -n default default >/dev/null 2>&1
}

wait_for_node() {
    local tries=120
    until node_is_ready; do
        tries=$((tries - 1))
        if [ "$tries" -eq 0 ]; then
            say "the node did not get ready; the end of $state/log/kubelet.log:"
            tail -n 5 "$state/log/kubelet.log" >&2
            return 1
        fi
        sleep 0.5
    done
}
