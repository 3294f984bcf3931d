#!/bin/sh
# What a namespace workspace does with a DHCP answer: udhcpc runs this with $1 = deconfig | bound | renew | leasefail | nak
# and the answer in the environment. It sets what was offered on $interface, takes only that back, and touches nothing else.
# Its init runs it with $1 = routers or dhcp6: $dns and $search are then all that those say on $interface.
[ -n "$interface" ] || exit 1
run=/run/dhcp

resolver() { # merges what all NICs were told; in place, because resolv.conf may be a mount point
    exec 9>"$run/lock"
    flock 9
    cat "$run"/*.search "$run"/*.dns "$run"/*.routers "$run"/*.dhcp6 2>/dev/null | awk '
        $1 == "search" { for (i = 2; i <= NF; i++) if (!seen[$i]++) list = list " " $i; next }
        !seen[$0]++ { servers = servers $0 "\n" }
        END { if (list) print "search" list; printf "%s", servers }' >"$run/merged"
    cat "$run/merged" >"$run/resolv.conf"
    exec 9>&-
}

withdraw() { # the address of an earlier answer, if it is another than $1
    [ -e "$run/$interface.address" ] || return 0
    read -r held <"$run/$interface.address"
    [ "$held" = "$1" ] || ip -4 address delete "$held" dev "$interface"
}

unroute() { # the default route of an earlier answer, if it is by another than $1
    [ -e "$run/$interface.router" ] || return 0
    read -r held <"$run/$interface.router"
    [ "$held" = "$1" ] && return 0
    ip -4 route delete default via "$held" dev "$interface"
    rm -f "$run/$interface.router"
}

case "$1" in
deconfig)
    unroute none
    withdraw none
    ip link set "$interface" up
    rm -f "$run/$interface.address" "$run/$interface.dns" "$run/$interface.search"
    resolver
    ;;
bound | renew)
    [ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
    ip -4 address replace "$ip/$mask" broadcast + dev "$interface"
    withdraw "$ip/$mask"
    echo "$ip/$mask" >"$run/$interface.address"
    hop="${router%% *}"
    if [ -n "$staticroutes" ]; then # RFC 3442: with option 121 the router option is ignored
        hop=""
        set -- $staticroutes
        while [ $# -ge 2 ]; do
            case "$1 $2" in
            0.0.0.0/0\ *) hop="$2" ;;
            *\ 0.0.0.0) ip -4 route replace "$1" dev "$interface" src "$ip" ;;
            *) ip -4 route replace "$1" via "$2" dev "$interface" onlink ;;
            esac
            shift 2
        done
    fi
    unroute "$hop"
    if [ -n "$hop" ]; then
        ip -4 route replace default via "$hop" dev "$interface" onlink
        echo "$hop" >"$run/$interface.router"
    fi
    [ -z "$hostname" ] || hostname "$hostname"
    for server in $dns; do echo "nameserver $server"; done >"$run/$interface.dns"
    [ -z "${search:-$domain}" ] && rm -f "$run/$interface.search" || echo "search ${search:-$domain}" >"$run/$interface.search"
    resolver
    ;;
routers | dhcp6)
    for server in $dns; do # one of the link needs its zone
        case "$server" in fe[89ab]?:*) server="$server%$interface" ;; esac
        echo "nameserver $server"
    done >"$run/$interface.$1"
    [ -z "$search" ] || echo "search $search" >>"$run/$interface.$1"
    resolver
    ;;
esac
exit 0
