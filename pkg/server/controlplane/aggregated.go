package controlplane

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	genericapiserver "k8s.io/apiserver/pkg/server"
	v1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"
	"k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"
	listers "k8s.io/kube-aggregator/pkg/client/listers/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/controllers/autoregister"
	"k8s.io/kubernetes/pkg/api/legacyscheme"

	"lite.io/lite/pkg/kube"
)

// apiServices is what the API server itself knows of aggregated APIs.
type apiServices struct {
	lister listers.APIServiceLister
	local  map[string]string // those that this process answers itself
}

// note names the aggregated APIs of users that do not answer. Whatever asks for
// all kinds, as the deletion of a namespace does, waits for them.
func (s *apiServices) note() string {
	if s == nil {
		return ""
	}
	all, err := s.lister.List(labels.Everything())
	if err != nil {
		return ""
	}
	var lines []string
	for _, api := range all {
		if down := helper.GetAPIServiceConditionByType(api, v1.Available); s.users(api) && down != nil && down.Status == v1.ConditionFalse {
			lines = append(lines, fmt.Sprintf("APIService %s does not answer: %s", api.Name, down.Message))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "; ")
}

func (s *apiServices) users(api *v1.APIService) bool {
	service := api.Spec.Service
	return service != nil && s.local[service.Namespace+"/"+service.Name] == ""
}

// reclaim gives the API server its own groups back at each start, where APIServices lead
// them to somebody else. Upstream's own hooks ask for roles by way of them and end the
// process, each time, so that nobody could take such an APIService away (1.37).
func reclaim(h genericapiserver.PostStartHookContext) error {
	client, err := clientset.NewForConfig(h.LoopbackClientConfig)
	if err != nil {
		return err
	}
	for err = reclaimOnce(h, client); err != nil && kube.Sleep(h, 100*time.Millisecond); {
		err = reclaimOnce(h, client)
	}
	return nil
}

func reclaimOnce(ctx context.Context, client clientset.Interface) error {
	services := client.ApiregistrationV1().APIServices()
	all, err := services.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, api := range all.Items {
		if api.Spec.Service == nil || !legacyscheme.Scheme.IsGroupRegistered(api.Spec.Group) {
			continue
		}
		slog.Warn("An APIService leads a group of Kubernetes' own elsewhere; it is the API server's again",
			"apiservice", api.Name, "service", api.Spec.Service.Namespace+"/"+api.Spec.Service.Name)
		api.Spec.Service, api.Spec.CABundle, api.Spec.InsecureSkipTLSVerify = nil, nil, false
		metav1.SetMetaDataLabel(&api.ObjectMeta, autoregister.AutoRegisterManagedLabel, "onstart")
		if _, err := services.Update(ctx, &api, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	return nil
}
