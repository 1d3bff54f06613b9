// Package cluster is the test bed of the end-to-end tests: it makes hosts on
// one machine and runs lite on them.
//
// A [Host] has network, mount, UTS, IPC, PID and cgroup namespaces of its own.
// It sees the machine's files, but what it writes goes elsewhere: /var/lib and
// /var/log are directories below [Host.Dir], everything else is kept in memory.
// Hosts of one [Network] reach each other over a bridge that lives in a network
// namespace of its own, so that nothing touches the network of the machine.
//
// A [Node] is a host on which lite is installed; a [Cluster] is what nodes form:
//
//	func TestMain(m *testing.M) { cluster.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		node := cluster.New(t).Server()
//		node.Kubectl(t, "run", "hello", "--image=lite.test/busybox:1")
//	}
//
// A [Machine] is a host with a Debian of its own whose init system runs, and
// without lite: for what installs, upgrades and removes it.
//
//	m := cluster.NewMachine(t, cluster.Systemd)
//	m.PushLite(t, "/usr/local/bin/lite")
//	m.Sh(t, "systemctl is-system-running")
//
// [Node.Reboot] cuts a host's power and boots it again on the files it has.
//
// Everything ends with the test that made it, also when that test panics. A
// host does not outlive the test process either: its PID 1 ends when the pipe
// that the test process holds is closed, and takes all others with it. What a
// killed run leaves behind, cgroups and a directory, is removed by the next.
//
// Every package that uses this one calls [Main] from its TestMain.
package cluster
