package log

import (
	"log/slog"
	"strings"
)

// usual is what upstream warns of while things take their course (1.37): by its message, and by what
// its error says of the cause, if not every cause is as usual.
var usual = map[string][]string{
	// Who had an exec, attach or port-forward open has closed it.
	"Error on socket receive": nil,
	// A machine that is busy. What is late is done all the same, and is told where it hurts.
	"Housekeeping took longer than expected": nil,
	// The pod is gone: nothing connects the node with it any more, and that is how it is refused.
	"Failed to get status for pod": {gone},
	// The last pod that used a Secret or a ConfigMap is gone, or somebody has removed a definition whose
	// objects the garbage collector and quotas watch.
	"Failed to watch": {gone, "the server could not find the requested resource"},
	// A container that ends again and again or an image that is not there are told by the pod itself.
	"Error syncing pod, skipping": {"CrashLoopBackOff", "ImagePullBackOff"},
	// The container went between the question and the answer.
	"ContainerStatus from runtime service failed": {"not found"},
	// Who had started a container, the shim, has ended with it.
	"failed sending message on channel": {"broken pipe"},
	// A controller waits until its cache has what it wrote itself, and looks again.
	"Unhandled Error": {"is not as new as written version"},
	// The pod's cgroup went between the question and the answer.
	"failed to read memory cgroup config for the pod": {noFile},
	"failed to read memory cgroup limits for the pod": {noFile},
}

// usualBegin is the same for messages of containerd with a container's ID behind (2.4): of one that went
// between the question and the answer.
var usualBegin = map[string][]string{
	"collecting metrics for ": {"cgroup deleted", "ttrpc: closed", noFile},
	"ContainerStatus for ":    {"not found"},
}

const (
	gone   = "no relationship found between node"
	noFile = "no such file or directory"

	// handshake begins what net/http says of clients that do not go on: those that only look whether
	// somebody listens, and the API server before a new kubelet has its certificate.
	handshake = "http: TLS handshake error"
)

// isUsual reports whether a record is of what happens every day.
func isUsual(r slog.Record) bool {
	causes, ok := usual[r.Message]
	for begin, of := range usualBegin {
		if strings.HasPrefix(r.Message, begin) {
			causes, ok = of, true
		}
	}
	if !ok {
		return false
	}
	found := len(causes) == 0
	r.Attrs(func(a slog.Attr) bool {
		if a.Key != "err" && a.Key != "error" {
			return !found
		}
		text := a.Value.String()
		for _, cause := range causes {
			found = found || strings.Contains(text, cause)
		}
		return !found
	})
	return found
}
