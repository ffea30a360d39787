# shellcheck shell=bash
# What a cluster makes outside its own folder, and how that goes again. Sourced by scripts/cluster.
# shellcheck disable=SC2154  # $state and the like are the caller's

# Kernel settings that a kubelet changes.
tunables=(kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes vm/overcommit_memory
    vm/panic_on_oom)
# Where a kubelet, containerd and the network's programs write, outside any folder that they can be given.
outside=(/var/lib/cni /var/lib/kubelet /var/log/containers /var/log/pods)
# Pods reach each other and the world whatever else, a Docker engine say, wants of the machine's traffic.
rules=("filter FORWARD -s $pods" "filter FORWARD -d $pods" "nat POSTROUTING -s $pods ! -d $pods")

remember_machine() {
    local name
    for name in "${outside[@]}"; do
        [ -e "$name" ] || printf '%s\n' "$name"
    done >"$state/made"
    for name in "${tunables[@]}"; do
        printf '%s %s\n' "$name" "$(cat "/proc/sys/$name")"
    done >"$state/tunables"
}

restore_tunables() {
    local name value
    while read -r name value; do
        printf '%s\n' "$value" >"/proc/sys/$name"
    done <"$state/tunables"
}

make_bridge() {
    local rule target
    ip link show "$bridge" >/dev/null 2>&1 || ip link add "$bridge" type bridge || return 1
    ip address replace "$host/16" dev "$bridge" && ip link set "$bridge" up || return 1
    for rule in "${rules[@]}"; do
        case $rule in nat*) target=MASQUERADE ;; *) target=ACCEPT ;; esac
        # shellcheck disable=SC2086  # the words of a rule are words
        set -- $rule
        iptables -w 10 -t "$1" -C "${@:2}" -m comment --comment "$network" -j $target 2>/dev/null ||
            iptables -w 10 -t "$1" -I "${@:2}" -m comment --comment "$network" -j $target || return 1
    done
}

# Our rules and all that kube-proxy made: what leads to them, then the chains themselves.
forget_rules() {
    local table kind
    for kind in iptables ip6tables; do
        command -v $kind-save >/dev/null || continue
        for table in nat filter mangle; do
            $kind-save -t $table 2>/dev/null | awk -v network="$network" -v table=$table '
                $1 == "-A" && $2 !~ /^KUBE-/ && (/ -j KUBE-/ || $0 ~ "--comment \"?" network) { sub(/^-A/, "-D"); ends = ends $0 "\n" }
                /^:KUBE-/ { name = substr($1, 2); empty = empty "-F " name "\n"; gone = gone "-X " name "\n" }
                END { if (ends empty != "") printf "*%s\n%s%s%sCOMMIT\n", table, ends, empty, gone }
            ' | $kind-restore -w 10 --noflush
        done
    done
}

# The containers of pods, and what holds them.
end_containers() {
    local tasks tries=100
    [ -e "$state/containerd.sock" ] || return 0
    own_pid containerd >/dev/null || start_component containerd || return 1
    tasks=$(ctr_cluster tasks ls -q)
    # shellcheck disable=SC2016  # sh expands it
    printf '%s\n' "$tasks" | xargs -r -P 4 -n 1 sh -c \
        'ctr -a "$0" -n k8s.io tasks kill -s KILL "$1"; ctr -a "$0" -n k8s.io tasks rm -f "$1"' \
        "$state/containerd.sock" >/dev/null 2>&1
    stop_component containerd || return 1
    while pgrep -f -- "containerd-shim.* -address $state/containerd.sock" >/dev/null; do
        tries=$((tries - 1))
        if [ "$tries" -eq 0 ]; then
            say "containers of the cluster do not end: see pgrep -af $state/containerd.sock"
            return 1
        fi
        sleep 0.1
    done
}

forget_mounts() {
    local place
    awk -v under=" $state/" 'index($0, under) { print $2 }' /proc/mounts | sort -r | while read -r place; do
        umount "$place" 2>/dev/null || umount -l "$place"
    done
    ! grep -q " $state/" /proc/mounts
}

forget_files() {
    find /var/log/containers -maxdepth 1 -lname "$state/*" -delete 2>/dev/null
    rm -f /var/lib/cni/results/"$network"-*
    if [ -f "$state/made" ]; then xargs -r -d '\n' rm -rf <"$state/made"; fi
    find /sys/fs/cgroup -depth -path '*/k8s.io*' -type d -exec rmdir {} + 2>/dev/null
    rm -rf "$state"
}

# Ends and removes all that is ours. Nothing of it is needed again, so that nothing need end in peace.
forget_cluster() {
    local name
    for name in kwok kubelet proxy kcm scheduler apiserver etcd; do
        stop_component $name KILL || return 1
    done
    end_containers || return 1
    forget_mounts || return 1
    forget_rules
    ip link delete "$bridge" 2>/dev/null
    if [ -f "$state/tunables" ]; then restore_tunables; fi
    forget_files
}
