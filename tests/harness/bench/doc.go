// Package bench measures how fast lite is and how much it weighs. It prints one
// table and writes dist/bench.json; docs/benchmarks.md says how to run it.
//
// A run is one new host (see package cluster) with one server, and takes these
// steps, in this order:
//
//   - Cold start on an empty data directory, in which only the archive of the
//     test image busybox (2 MB) is in place to be imported. All times count from
//     the moment before exec. /readyz of the API is polled every 10 ms; the node
//     and the pod are watched. "First pod" is created as soon as the API takes
//     it, tried every 10 ms from the start, and is Running when the API says so;
//     its image is lite.test/busybox:1. "All parts ready" is what `lite status`
//     answers on its socket, asked every 50 ms.
//   - The metrics API is asked every 50 ms until it has figures of the node; this
//     time counts from before exec as well.
//   - Idle: the pod is deleted; after -settle from the cold start /proc is read,
//     then CPU and writes are counted over -window. RssAnon, RssFile and VmRSS
//     are of /proc/<pid>/status, PSS of smaps_rollup, CPU is utime+stime of
//     stat (programs that lite starts do not count), writes are write_bytes of
//     io: pages that lite made dirty, wherever they went. -later reads the
//     memory once more, that long after the cold start.
//   - Ten pods of a Deployment: 30 s after they are Ready, CPU over -window, and
//     the mean RSS and PSS of their shims.
//   - Stop with these pods: SIGTERM to exit.
//   - Restart on what is there, with the ten pods running. A Node object says
//     Ready from before, so its Ready condition counts only with a heartbeat of
//     after exec (heartbeats have whole seconds: the start waits for the next
//     one). A pod is created as in the cold start: it is Running only if
//     everything works again.
//   - A claim of the default class is created, and with it a pod that has its
//     volume; the end is when the pod is Running.
//   - 0 to 30 pods: a Deployment is scaled from none to 30; the end is when its
//     status has 30 ready replicas.
//   - A Service of type LoadBalancer is created and watched until it has an
//     address.
//   - Creates: 20 writers with a connection each create ConfigMaps of 1 KiB, as
//     JSON, for 5 s. The writers share the processors with lite.
//   - Joins: 2,000 certificates of nodes are asked for by 40 tokens at once, as fast
//     as 40 clients can; the end is when all are approved.
//
// Then a server and an agent on two new hosts: the agent joins with a token (the
// time counts from before exec until the API says that its node is Ready), and
// both are idle as above. A second such pair has all batteries disabled: what they weigh
// is the difference of the two pairs. Over one TCP connection bytes pass for 5 s from host to host,
// from pod to pod on the agent, and from a pod of the agent to one of the server;
// the latter two are given relative to the first. Then single bytes go to and
// fro, 2,000 times. Sender and receiver share the processors: it is the cost of
// the path that is compared, not what a network card carries.
//
// The size is that of the binary as built, and as compressed by zstd -19, once
// plain and once with --long=27. MB are 10^6 bytes.
//
// Every figure is the median over the runs; dist/bench.json has all samples.
// The binary is copied when the measuring starts, so it is in the page cache
// and a rebuild does not disturb. "CPU of others" is what all other processes of
// the machine used while the idle CPU was counted: where it is more than a few
// per cent, the figures are of a busy machine. No test depends on any of them.
package bench
