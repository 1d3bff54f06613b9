// Package restart shows that lite can be stopped, killed and started again
// without anybody's pods or objects being lost.
package restart

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

const (
	timeout = 2 * time.Minute
	// stopLimit is what lite promises: SIGTERM to exit.
	stopLimit = 25 * time.Second
)

// TestStop stops lite under running pods: they answer while it is down, also
// through their Service, and the next start takes them over as they are.
func TestStop(t *testing.T) {
	t.Parallel()
	node := cluster.New(t).Server()
	ns := node.Namespace(t)
	ns.Apply(t, cluster.Web(3))
	ns.WaitRollout(t, "deployment/web")
	before := ns.Containers(t)
	if len(before) != 3 {
		t.Fatalf("%d containers run, want 3", len(before))
	}
	service := "http://" + node.IP + ":" + ns.Field(t, "service/web", ".spec.ports[0].nodePort") + "/hostname"
	cluster.Eventually(t, timeout, func() error {
		_, err := cluster.Get(node, service)
		return err
	})

	for round := range 2 {
		if took := node.Stop(t); took > stopLimit {
			t.Errorf("stopping took %s, more than %s", took, stopLimit)
		}
		for range 10 {
			if _, err := cluster.Get(node, service); err != nil {
				t.Errorf("while lite is down: %v", err)
			}
		}
		node.Start(t)
		ns.WaitRollout(t, "deployment/web")
		if after := ns.Containers(t); !maps.Equal(before, after) {
			t.Errorf("round %d: containers and their restarts have changed\nfrom %v\n  to %v", round, before, after)
		}
	}

	// What was taken over is managed as before.
	// A kubelet that has just started may not have heard of the pod yet.
	cluster.Eventually(t, timeout, func() error {
		_, err := ns.KubectlErr(t, "exec", "deployment/web", "--", "true")
		return err
	})
	ns.Kubectl(t, "set", "image", "deployment/web", "web=lite.test/agnhost:3")
	ns.WaitRollout(t, "deployment/web")
	// kube-proxy may be a second behind.
	cluster.Eventually(t, timeout, func() error {
		_, err := cluster.Get(node, service)
		return err
	})
}

// TestSecondStart starts lite again on the data directory of one that runs,
// however its path is written: it is refused, by name of the culprit, who does
// not notice.
func TestSecondStart(t *testing.T) {
	t.Parallel()
	node := cluster.New(t).Server()
	node.Output(t, "ln", "-s", cluster.DataDir, "/var/lib/link")
	node.Output(t, "mkdir", "/var/lib/bound")
	node.Output(t, "mount", "--bind", cluster.DataDir, "/var/lib/bound")
	for name, args := range map[string][]string{
		"default":        nil,
		"trailing slash": {"--data-dir=" + cluster.DataDir + "/"},
		"roundabout":     {"--data-dir=/var//lib/../lib/./lite"},
		"symbolic link":  {"--data-dir=/var/lib/link"},
		"bind mount":     {"--data-dir=/var/lib/bound"},
		"other ports":    {"--https-listen-port=7443"},
	} {
		t.Run(name, func(t *testing.T) {
			pid := strconv.Itoa(node.PID(t))
			if message := refused(t, node, args...); !slices.Contains(strings.FieldsFunc(message, notDigit), pid) {
				t.Errorf("want process %s to be named, got:\n%s", pid, message)
			}
		})
	}
	t.Run("relative", func(t *testing.T) {
		if message := refused(t, node, "--data-dir=var/lib/lite"); !strings.Contains(message, "absolute") {
			t.Errorf("got:\n%s", message)
		}
	})
	node.WaitReady(t)
}

// refused makes a start that must end with exit code 1 and one line, which it
// returns.
func refused(t *testing.T, node *cluster.Node, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	second := node.Command(ctx, "lite", append([]string{"server"}, args...)...)
	var stderr strings.Builder
	second.Stderr = &stderr
	_ = second.Run()
	if code := second.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	message := strings.TrimSpace(stderr.String())
	if message == "" || strings.Contains(message, "\n") {
		t.Errorf("want one line, got:\n%s", message)
	}
	return message
}

func notDigit(r rune) bool { return r < '0' || r > '9' }

// kills is how often TestKill kills lite.
const kills = 20

// TestKill kills lite at random moments, while a Deployment rolls to and fro
// and a writer creates objects. Every object whose creation was acknowledged is
// there afterwards, and the pods become what the Deployment says.
//
// LITE_TEST_SEED repeats the moments of an earlier run.
func TestKill(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("LITE_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("LITE_TEST_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	node := cluster.New(t).Server()
	ns := node.Namespace(t)
	ns.Apply(t, cluster.Web(3))
	ns.WaitRollout(t, "deployment/web")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var acknowledged []string
	var work sync.WaitGroup
	work.Go(func() { acknowledged = write(ctx, t, ns) })
	work.Go(func() { roll(ctx, t, ns) })

	for range kills {
		// A start takes some seconds: some kills hit it, others what follows.
		time.Sleep(time.Duration(random.Int64N(int64(8 * time.Second))))
		node.Kill(t)
		node.Launch(t)
	}
	node.WaitReady(t)
	cancel()
	work.Wait()

	t.Logf("%d creations were acknowledged", len(acknowledged))
	if len(acknowledged) < kills {
		t.Errorf("only %d creations were acknowledged, too few to prove anything", len(acknowledged))
	}
	client := node.Client(t)
	list, err := client.CoreV1().ConfigMaps(ns.Name).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, object := range list.Items {
		there[object.Name] = true
	}
	for _, name := range acknowledged {
		if !there[name] {
			t.Errorf("%s was acknowledged and is gone", name)
		}
	}

	ns.Kubectl(t, "set", "image", "deployment/web", "web=lite.test/agnhost:3")
	ns.WaitRollout(t, "deployment/web")
	cluster.Eventually(t, timeout, func() error {
		pods, err := client.CoreV1().Pods(ns.Name).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		if len(pods.Items) != 3 {
			return fmt.Errorf("%d pods, want 3", len(pods.Items))
		}
		for _, pod := range pods.Items {
			if pod.Status.Phase != corev1.PodRunning || pod.Spec.Containers[0].Image != "lite.test/agnhost:3" {
				return fmt.Errorf("pod %s is %s with %s", pod.Name, pod.Status.Phase, pod.Spec.Containers[0].Image)
			}
		}
		return nil
	})
	checkAddresses(t, ns)
}

// write creates ConfigMaps until ctx ends; it returns the names of those whose
// creation was acknowledged.
func write(ctx context.Context, t *testing.T, ns *cluster.Namespace) (acknowledged []string) {
	client := ns.Node.Client(t)
	for i := 0; ctx.Err() == nil; i++ {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("written-%d", i)}}
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := client.CoreV1().ConfigMaps(ns.Name).Create(attempt, object, metav1.CreateOptions{})
		cancel()
		if err == nil {
			acknowledged = append(acknowledged, object.Name)
		}
		kube.Sleep(ctx, 50*time.Millisecond)
	}
	return acknowledged
}

// roll gives the Deployment another image again and again until ctx ends.
func roll(ctx context.Context, t *testing.T, ns *cluster.Namespace) {
	client := ns.Node.Client(t)
	for i := 0; ctx.Err() == nil; i++ {
		patch := fmt.Sprintf(`{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"lite.test/agnhost:%d"}]}}}}`, 2+i%2)
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		// It fails while lite is down.
		_, _ = client.AppsV1().Deployments(ns.Name).Patch(attempt, "web", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
		cancel()
		kube.Sleep(ctx, 3*time.Second)
	}
}
