package controlplane

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	v1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset/fake"
)

func TestOwnGroupsAreReclaimed(t *testing.T) {
	service := &v1.ServiceReference{Namespace: "default", Name: "thief"}
	api := func(name, group string, service *v1.ServiceReference) *v1.APIService {
		return &v1.APIService{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.APIServiceSpec{Group: group, Version: "v1", Service: service, InsecureSkipTLSVerify: service != nil, VersionPriority: 15}}
	}
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
