package upgrade

import (
	"testing"
	"time"

	v1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"lite.io/lite/pkg/layout"
)

func TestTurn(t *testing.T) {
	leases := fake.NewClientset().CoordinationV1().Leases(metav1.NamespaceSystem)
	a, b := turn{leases, "a"}, turn{leases, "b"}
	const long = time.Hour
	says(t, a.take(t.Context(), long), "")
	says(t, b.take(t.Context(), long), "server a is being upgraded or rolled back")
	says(t, a.take(t.Context(), long), "") // its command was killed
	says(t, b.end(t.Context()), "")        // not its own
	says(t, b.take(t.Context(), long), "kubectl delete lease -n kube-system lite-upgrade")
	says(t, a.end(t.Context()), "")
	says(t, a.end(t.Context()), "")
	says(t, b.take(t.Context(), long), "")

	lease, err := leases.Get(t.Context(), layout.UpgradeLease, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*v1.LeaseSpec)
		want   string
	}{
		"expired":       {func(s *v1.LeaseSpec) { s.RenewTime = &metav1.MicroTime{Time: time.Now().Add(-long - time.Second)} }, ""},
		"nobody's":      {func(s *v1.LeaseSpec) { s.HolderIdentity = new(string) }, ""},
		"no holder":     {func(s *v1.LeaseSpec) { s.HolderIdentity = nil }, ""},
		"endless":       {func(s *v1.LeaseSpec) { s.LeaseDurationSeconds = nil }, ""},
		"a clock ahead": {func(s *v1.LeaseSpec) { s.RenewTime = &metav1.MicroTime{Time: time.Now().Add(10 * time.Minute)} }, "server b is"},
	} {
		t.Run(name, func(t *testing.T) {
			l := lease.DeepCopy()
			test.change(&l.Spec)
			if _, err := leases.Update(t.Context(), l, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			says(t, a.take(t.Context(), long), test.want)
		})
	}
}
