# Asks the name server of a pod for web.default.svc.cluster.local, and prints the answer in hexadecimal digits. The
# question goes by TCP, with its length before it: the shell of the test images has no program that looks up names.
server=$(sed -n 's/^nameserver //p' /etc/resolv.conf)
{
	printf '\000\057\000\001\001\000\000\001\000\000\000\000\000\000\003web\007default\003svc\007cluster\005local\000\000\001\000\001'
	sleep 5
} | nc "$server" 53 | od -An -tx1 | tr -d ' \n'
