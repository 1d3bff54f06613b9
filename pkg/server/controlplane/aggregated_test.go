package controlplane

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	v1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset/fake"
	informers "k8s.io/kube-aggregator/pkg/client/informers/externalversions"

	"lite.io/lite/pkg/kube"
)

func api(name, group string, service *v1.ServiceReference) *v1.APIService {
	return &v1.APIService{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.APIServiceSpec{Group: group, Version: "v1", Service: service, InsecureSkipTLSVerify: service != nil, VersionPriority: 15}}
}

func TestOwnGroupsAreReclaimed(t *testing.T) {
	service := &v1.ServiceReference{Namespace: "default", Name: "thief"}
	client := fake.NewClientset(
		api("v1.", "", service), api("v1.rbac.authorization.k8s.io", "rbac.authorization.k8s.io", service), api("v1.apps", "apps", nil),
		api("v1beta1.metrics.k8s.io", "metrics.k8s.io", service), api("v1.example.com", "example.com", service),
	)
	if err := reclaimOnce(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	all, err := client.ApiregistrationV1().APIServices().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, api := range all.Items {
		theirs := api.Name == "v1beta1.metrics.k8s.io" || api.Name == "v1.example.com"
		managed := api.Labels["kube-aggregator.kubernetes.io/automanaged"] == "onstart"
		if (api.Spec.Service != nil) != theirs || managed == (theirs || api.Name == "v1.apps") || api.Spec.VersionPriority != 15 {
			t.Errorf("%s: %+v, labels %v", api.Name, api.Spec, api.Labels)
		}
	}
}

// Somebody leads them away while it runs, again and again.
func TestOwnGroupsAreReclaimedWhileItRuns(t *testing.T) {
	client := fake.NewClientset(api("v1.", "", nil), api("v1.apiextensions.k8s.io", "apiextensions.k8s.io", nil), api("v1.example.com", "example.com", nil))
	factory := informers.NewSharedInformerFactory(client, 0)
	r := reclaim{make(chan struct{}, 1)}
	if err := r.watch(factory.Apiregistration().V1().APIServices().Informer()); err != nil {
		t.Fatal(err)
	}
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	go r.follow(t.Context(), client)
	services := client.ApiregistrationV1().APIServices()
	for _, name := range []string{"v1.", "v1.apiextensions.k8s.io", "v1."} {
		thief, err := services.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		thief.Spec.Service = &v1.ServiceReference{Namespace: "default", Name: "thief"}
		if _, err := services.Update(t.Context(), thief, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		for back := thief; back.Spec.Service != nil && kube.Sleep(t.Context(), 10*time.Millisecond); {
			if back, err = services.Get(t.Context(), name, metav1.GetOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
}
