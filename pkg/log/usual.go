package log

import (
	"log/slog"
	"regexp"
	"strings"

	"lite.io/lite/pkg/layout"
)

// usual is what upstream warns of while things take their course (1.37, containerd 2.4): by how its
// message begins, and by what the message or the error says of the cause, if not every cause is as usual.
var usual = []struct {
	begin  string
	causes *regexp.Regexp // nil = any
}{
	// The client finds the object changed by somebody else, or not yet in its own cache, and retries. A
	// namespace that goes takes nothing new, and a node that has lost its last pod of it may ask nothing.
	{"", regexp.MustCompile(`the object has been modified; please apply your changes|is not as new as written version|` +
		`because it is being terminated|no relationship found between node`)},

	// A client has closed its exec, attach or port-forward.
	{"Error on socket receive", nil},
	{"Error proxying data from ", cause(closed)},
	// A machine that is busy. What is late is done all the same, and is told where it hurts.
	{"Housekeeping took longer than expected", nil},
	{"Operation for ", cause(`failed to sync (configmap|secret) cache: timed out`)},
	// The pod is gone before its last state is told. What the state says comes earlier in the error.
	{"Failed to update status for pod", cause(`pods "[^"]*" not found$`)},
	{"Error updating pod", cause(`^pods "[^"]*" not found$`)},
	{"Error syncing SVM resource, retrying", cause(`not found$`)},
	{"Could not sync claim", cause(`^persistentvolumeclaims "[^"]*" not found$`)},
	{"Server rejected event", cause(`^namespaces "[^"]*" not found$`)},
	{"Operation for ", cause(`object "[^"]*"/"[^"]*" not registered$`)},
	// Somebody has removed a definition whose objects the garbage collector and quotas watch.
	{"Failed to watch", cause(`the server could not find the requested resource`)},
	// A container that ends again and again, an image that is not there and what a pod asks for that cannot
	// be are told by the pod itself.
	{"Error syncing pod, skipping", cause(`CrashLoopBackOff|ImagePullBackOff|ErrImagePull|CreateContainerConfigError`)},
	{"failed to look up the runtime handler", cause(`not found$`)},
	{"Allocated pod resize is not currently feasible", nil},
	{"Hostname for pod was too long, truncated it", nil},
	// The container or its sandbox went between the question and the answer.
	{"ContainerStatus from runtime service failed", cause(`not found`)},
	{"ContainerStatus for ", cause(`not found`)},
	{"PodSandboxStatus for ", cause(`not found`)},
	{"get container info failed", cause(`not found`)},
	{"failed to delete task", cause(`not found`)},
	{"collecting metrics for ", cause(`cgroup deleted|ttrpc: closed|no such device|` + noFile)},
	{"Failed to create existing container: /" + layout.PodCgroup, cause(`not found$`)},
	{"Partial failure issuing cadvisor.ContainerInfoV2", cause(`unable to find data in memory cache`)},
	{"failed to read memory cgroup config for the pod", cause(noFile)},
	{"failed to read memory cgroup limits for the pod", cause(noFile)},
	{"ExecSync for ", cause(ended)},
	{"ExecSync cmd from runtime service failed", cause(ended)},
	{"Exec for ", cause(ended)},
	{"Exec cmd from runtime service failed", cause(ended)},
	{"Failed to delete exec process ", cause(ended)},
	{"Shim ttrpc connection closed when stopping container ", cause(`ttrpc: closed`)},
	{"RemoveContainer for ", cause(`already in removing state`)},
	{"RemoveContainer from runtime service failed", cause(`already in removing state`)},
	// Its shim, who had started it, has ended with it, or it has never run.
	{"failed sending message on channel", cause(`broken pipe`)},
	{"warnings while cleaning up dead shim", nil},
	{"Failed to pipe std", cause(`reading from a closed fifo`)},
	{"ttrpc: received message on inactive stream", nil},
	{"GetContainerEvents failed", cause(`transport is closing`)},
	// The datastore does not answer, which is told once with the reason and how long it took.
	{"Failed to list latest changes", nil},
	{"Failed to prepare to list latest changes", nil},
	{"error while range on ", nil},
	{"error in txn ", nil},
	{"TTL delete trigger failed", nil},
	{"Failed to ping database connection", nil},
	{"Failed to get current revision for ProgressNotify", nil},
	// A namespace waits for its pods to end, and is checked again.
	{"Deletion of namespace failed", cause(`unexpected items still remain`)},
	// Controllers look again at what has gone meanwhile, and clients are told themselves what they did wrong,
	// what a webhook of theirs forbids or that the other end is gone.
	{"Unhandled Error", cause(`^(sync "[^"]*"|PVC? \S+) failed with( :|:)? [a-z.]+ "[^"]*" not found$|^unable to (taint|remove) .*: nodes "[^"]*" not found$|` +
		`^failed to remove pod init container .*already in removing state|` +
		`^ReplicaSet has no controller|storage is \(re\)initializing|failed to create typed patch object|` +
		`^admission webhook "[^"]*" denied the request|` +
		`^error (attaching to container|executing command in container): .*(` + ended + `)|` +
		`^error forwarding port .*(connection refused|` + closed + `)`)},

	// What another line tells too, which names the pod: "Failed to pull image",
	{"PullImage ", nil},
	// "Operation for …",
	{"Error preparing data for projected volume ", nil},
	{"Couldn't get configMap ", nil},
	{"Couldn't get secret ", nil},
	// and "Error syncing pod, skipping".
	{"StartContainer for ", nil},
	{"StartContainer from runtime service failed", nil},
	{"RunPodSandbox for ", nil},
	{"RunPodSandbox from runtime service failed", nil},
	{"CreatePodSandbox for pod failed", nil},
	{"Failed to create sandbox for pod", nil},
	{"Unhandled Error", cause(`^(init |ephemeral )?container \S+ start failed in pod `)},
}

const (
	noFile = `no such file or directory`
	closed = `connection reset by peer|broken pipe|use of closed network connection|unexpected EOF`
	ended  = `not found|CONTAINER_EXITED|ttrpc: closed|process is not running|cannot exec in a (stopped|deleted)|namespace path: lstat /proc/`

	// handshake begins what net/http says of clients that do not go on: those that only look whether
	// somebody listens, and the API server before a new kubelet has its certificate.
	handshake = "http: TLS handshake error"
)

func cause(pattern string) *regexp.Regexp { return regexp.MustCompile(pattern) }

// isUsual reports whether a record is of what happens every day.
func isUsual(r slog.Record) bool {
	texts := []string{r.Message}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "err" || a.Key == "error" {
			texts = append(texts, a.Value.String())
		}
		return true
	})
	for _, u := range usual {
		if !strings.HasPrefix(r.Message, u.begin) {
			continue
		}
		if u.causes == nil {
			return true
		}
		for _, text := range texts {
			if u.causes.MatchString(text) {
				return true
			}
		}
	}
	return false
}
