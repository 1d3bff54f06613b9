# Prints what the machine is like, one thing a line, without what every boot makes anew: the lifetimes of
# addresses, systemd's notes of its units and their private directories, binfmt_misc, which is mounted when
# somebody looks.
say() { sed "s/^[ \t]*/$1: /"; }
same() { grep -v 'binfmt_misc\|systemd-private-'; }
cut -d' ' -f5-6 /proc/self/mountinfo | same | say mount
ip -o link | cut -d: -f2- | say link
ip -o addr | cut -d: -f2- | sed 's/ valid_lft.*//' | say address
{ ip -d route show table all; ip -d -6 route show table all; } | sed 's/ expires [0-9]*sec//' | say route
{ ip rule; ip -6 rule; } | say rule
ls /run/netns 2>/dev/null | say namespace
{ ss -Hlntu | awk '{print $1, $4, $5}'; ss -Hlx | awk '{print $5}'; } | say socket
nft -s list ruleset | say nft
{ iptables-nft-save; ip6tables-nft-save; iptables-legacy-save; ip6tables-legacy-save; } 2>/dev/null | grep -v '^#' | sed 's/\[[0-9:]*\]//' | say iptables
find /sys/fs/cgroup -type d | same | say cgroup
systemctl list-units --all --plain --no-legend --no-pager --full | awk '{print $1, $2, $3, $4}' | same | say unit
systemctl list-unit-files --no-legend --no-pager | say file-of-unit
ps -eo ppid=,args= | awk '$1 != 2 { $1 = ""; print }' | grep -v ' ps -eo\| awk \| grep \| sed \|trace.sh\|timeout ' | say process
sysctl -a 2>/dev/null | grep -v '^kernel\.\(random\|ns_last_pid\|sched\|perf\|pty\)\|^fs\.\|stable_secret\|nf_conntrack_count\|^vm.\(stat\|user_reserve\)\|^net.ipv4.tcp_mem\|net.ipv4.udp_mem' | say setting
find /etc /boot /home /opt /srv /tmp /usr /dev/shm /var /run -xdev \( -path /var/log/journal -o -path /run/log/journal -o -path /run/systemd/journal -o -path /run/systemd/units -o -path /run/systemd/transient -o -path /run/udev -o -path /run/xtables.lock \) -prune -o -printf '%p %M %l %u:%g\n' | same | say path
find /etc /usr/local /var/lib /opt -xdev -type f ! -path /var/lib/systemd/random-seed -size -64k -exec sha256sum {} + | say content
